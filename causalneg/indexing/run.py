"""The stage `index`: encodes the corpus with the trained encoder and publishes an index version."""

import shutil
from pathlib import Path

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.indexing.build import build_version
from causalneg.indexing.store import IndexManifest, IndexModel, open_index
from causalneg.models import ResolvedModel, resolve
from causalneg.records import Passage
from causalneg.vectors import embed_corpus
from causalneg.workspace import Counts, Manifest, Stage, Workspace

TRAINED = "trained"  # how an index names the encoder in the workspace's model folder


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


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Build the index of the corpus; nothing is done when it is there already."""
    root = workspace.local_folder("index")
    workspace.require("import")
    model, inputs = _encoder(config, workspace)
    stage = workspace.begin("index", {"index": config.index, "encoder": model.fingerprint}, inputs)
    if stage.done:
        report.line(f"index: already done (version {stage.done.details['version']})")
        return stage.done
    if "train" not in inputs:
        report.line(f"index: no encoder is trained yet, so the corpus is indexed with {config.encoder}")
    for left in root.glob(".*"):  # of runs that were killed
        shutil.rmtree(left)
    folder = root / stage.key[:12]
    version = _whole_version(folder, model)
    if version is None:
        vectors = embed_corpus(workspace, model, config.encode, report)
        version = build_version(
            folder,
            IndexModel(name=model.name, fingerprint=model.fingerprint),
            vectors,
            workspace.read_batches("corpus", Passage),
        )
    megabytes = sum(entry.bytes for entry in version.files.values()) / 1e6
    size = f"{version.rows} passages, {version.dimension} dimensions, {megabytes:.1f} MB"
    report.line(f"index: version {version.version}: {size}")
    return stage.finish(
        Counts(rows_in=version.rows, accepted=version.rows),
        details={
            "version": version.version,
            "model": model.name,
            "fingerprint": model.fingerprint,
            "trained": "train" in inputs,
            "rows": version.rows,
            "dimension": version.dimension,
        },
        folders=[f"index/{version.version}"],
    )
