"""The stage `index`: encodes the corpus with the trained encoder and publishes an index version."""

import shutil
from pathlib import Path

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.indexing.build import build_version
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.encoders import TRAINED, keep_model
from causalneg.indexing.manifest import IndexManifest, IndexModel
from causalneg.indexing.queries import held_out
from causalneg.indexing.store import open_index
from causalneg.indexing.tune import needs_queries
from causalneg.models import ResolvedModel, resolve
from causalneg.prompts import saved_prompts
from causalneg.records import Passage
from causalneg.vectors import embed_corpus
from causalneg.workspace import Counts, Manifest, Stage, Workspace


def _encoder(config: Config, workspace: Workspace) -> tuple[ResolvedModel, list[Stage]]:
    """Return the encoder to index with and the stages that the index comes from."""
    if workspace.manifest("train") is None:
        return resolve(config.encoder), ["import"]
    found = resolve(str(workspace.local_folder("model")))
    return ResolvedModel(TRAINED, found.path, found.fingerprint), ["import", "train"]


def _whole_version(folder: Path, model: ResolvedModel) -> IndexManifest | None:
    """Return the manifest of a version that an earlier run published; remove one that is broken."""
    if not folder.exists():
        return None
    try:
        return open_index(folder, model.fingerprint).manifest
    except UserError:
        shutil.rmtree(folder)
        return None


def _build(config: Config, workspace: Workspace, model: ResolvedModel, folder: Path, report: Reporter) -> IndexManifest:
    vectors = embed_corpus(workspace, model, config.encode, report)
    queries = held_out(config, workspace, model) if needs_queries(config.index, len(vectors)) else None
    return build_version(
        folder,
        IndexModel(name=model.name, fingerprint=model.fingerprint, prompts=saved_prompts(model)),
        lambda: vectors,
        workspace.read_batches("corpus", Passage),
        config.index,
        rows=len(vectors),
        report=report,
        queries=queries,
    )


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest | IndexManifest:
    """Build the index of the corpus, or of the active version and its changes, and let it answer.

    Nothing is done when it is there already.
    """
    if config.index.merge:
        from causalneg.indexing import merge

        return merge.run(config, workspace, report)
    root = workspace.local_folder("index")
    workspace.require("import")
    model, inputs = _encoder(config, workspace)
    built = config.index.model_dump(mode="json", exclude={"merge", "activate"})
    stage = workspace.begin("index", {"index": built, "encoder": model.fingerprint}, inputs, say=report.line)
    if stage.done:
        report.line(f"index: already done (version {stage.done.details['version']})")
        return stage.done
    if "train" not in inputs:
        report.line(f"index: no encoder is trained yet, so the corpus is indexed with {config.encoder}")
    folder = root / stage.key[:12]
    version = _whole_version(folder, model) or _build(config, workspace, model, folder, report)
    catalog = Catalog(root)
    if model.name == TRAINED:
        keep_model(model, catalog.model_folder(model.fingerprint))
    if config.index.activate:
        catalog.activate(version.version)
    megabytes = sum(entry.bytes for entry in version.files.values()) / 1e6
    size = f"{version.rows} passages, {version.dimension} dimensions, {megabytes:.1f} MB"
    report.line(f"index: version {version.version}: {version.kind}, {size}")
    return stage.finish(
        Counts(rows_in=version.rows, accepted=version.rows),
        details={
            "version": version.version,
            "model": model.name,
            "fingerprint": model.fingerprint,
            "trained": "train" in inputs,
            "rows": version.rows,
            "dimension": version.dimension,
            "kind": version.kind,
            "recall": version.recall,
        },
        folders=[f"index/{version.version}"],
    )
