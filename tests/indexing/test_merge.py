"""Merges: the new version answers as the old one did with its changes, and a killed merge changes nothing."""

import io
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from change_samples import OTHER, answers, encode, passage, vector_of

from causalneg.config import Config, IndexSettings, load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.features import FeatureCache
from causalneg.files import locked
from causalneg.indexing.build import build_version
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.changes import Change
from causalneg.indexing.encoders import find_model, keep_model
from causalneg.indexing.manifest import IndexModel, read_manifest
from causalneg.indexing.merge import run
from causalneg.indexing.store import open_index
from causalneg.indexing.view import View
from causalneg.models import resolve
from causalneg.records import Passage, to_table
from causalneg.workspace import Workspace

CORPUS = [passage(f"p{n}", n) for n in range(20)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with an index version; its encoder need never be loaded, for the vectors of all texts are kept."""
    workspace = Workspace(str(tmp_path / "ws"))
    model = workspace.local_folder("model")
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"no weights")
    fingerprint = resolve(str(model)).fingerprint
    texts = [passage("", n).full_text for n in range(27)]
    FeatureCache(workspace, f"embeddings/{fingerprint}-auto").add(texts, encode(texts))
    build(workspace, CORPUS, "v1", IndexSettings(kind="flat"))
    return workspace


def build(workspace: Workspace, passages: list[Passage], name: str, settings: IndexSettings) -> None:
    build_version(
        workspace.local_folder("index") / name,
        IndexModel(name="trained", fingerprint=own_model(workspace), prompts={"query": "q: "}),
        lambda: [encode([p.full_text for p in passages])],
        to_table(Passage, passages).to_batches(max_chunksize=7),
        settings,
        rows=len(passages),
        report=Reporter(io.StringIO()),
    )


def own_model(workspace: Workspace) -> str:
    return resolve(str(workspace.local_folder("model"))).fingerprint


def catalog_of(workspace: Workspace) -> Catalog:
    return Catalog(workspace.local_folder("index"))


def put(workspace: Workspace, name: str, number: int, model: str | None = None) -> Change:
    made = passage(name, number)
    return Change.upsert(made, model or own_model(workspace), vector_of(made.full_text))


def config_of(workspace: Workspace, **flags: object) -> Config:
    return load_config(flags={"workspace": workspace.root_url} | {n.replace("__", "."): v for n, v in flags.items()})


def opened(workspace: Workspace, version: str | None = None) -> View:
    """Open a version, the active one unless it is named, with all changes."""
    catalog = catalog_of(workspace)
    active = catalog.active()
    assert active is not None
    view = View.open(open_index(catalog.folder_of(version or active.version), own_model(workspace)))
    return view.with_changes(catalog.changes.reader(after=view.change).poll(), encode)


@pytest.mark.parametrize("seed", range(3))
def test_a_merge_changes_no_answer(workspace: Workspace, report: Reporter, seed: int) -> None:
    draw, catalog = random.Random(seed), catalog_of(workspace)  # noqa: S311 - the same in every run
    own, ids = own_model(workspace), [f"p{n}" for n in range(25)]
    for _ in range(2):  # the second merge starts from what the first one made
        for _ in range(6):
            batch = [
                Change.delete(draw.choice(ids))
                if draw.random() < 0.4
                else put(workspace, draw.choice(ids), draw.randrange(27), draw.choice([own, own, OTHER]))
                for _ in range(draw.randint(1, 4))
            ]
            catalog.changes.append(batch)
        before = opened(workspace)
        manifest = run(config_of(workspace), workspace, report)
        after = opened(workspace)
        assert (after.version, after.change, after.rows) == (manifest.version, before.change, before.rows)
        assert (manifest.rows, manifest.change, manifest.kind) == (before.rows, before.change, "flat")
        assert manifest.model.prompts == {"query": "q: "}
        assert answers(after) == answers(before)
    first = opened(workspace, "v1")
    assert answers(first) == answers(after), "the first version with all changes is the same still"


def test_what_only_the_log_has_is_not_encoded_again(workspace: Workspace, report: Reporter) -> None:
    """The vectors of new texts are in the log alone: the model, which has no weights, could not make them."""
    catalog, own = catalog_of(workspace), own_model(workspace)
    new = [Change.upsert(Passage(id=f"n{n}", text=f"never seen {n}"), own, np.array([n, 1, 2])) for n in range(3)]
    catalog.changes.append(new)
    run(config_of(workspace), workspace, report)
    catalog.changes.append([Change.delete("n1"), put(workspace, "p3", 7)])
    before = opened(workspace)
    run(config_of(workspace), workspace, report)
    assert answers(opened(workspace)) == answers(before)
    assert opened(workspace).search(np.array([[2, 1, 2]], np.float32), 1)[0][0].id == "n2"


def test_without_changes_there_is_nothing_to_do(workspace: Workspace, report: Reporter) -> None:
    catalog = catalog_of(workspace)
    assert run(config_of(workspace), workspace, report).version == "v1"
    catalog.changes.append([Change.delete("p1")])
    merged = run(config_of(workspace), workspace, report)
    assert run(config_of(workspace), workspace, report) == merged
    assert report.console.file.getvalue().count("nothing to merge") == 2  # type: ignore[attr-defined]
    assert len(catalog.versions()) == 2


def test_the_new_version_answers_only_if_it_is_to(workspace: Workspace, report: Reporter) -> None:
    catalog = catalog_of(workspace)
    catalog.changes.append([Change.delete("p1")])
    merged = run(config_of(workspace, index__activate=False), workspace, report)
    active = catalog.active()
    assert active is not None
    assert active.version == "v1", "though a newer one is there now"
    again = run(config_of(workspace), workspace, report)
    assert again == merged, "what is there is not built again"
    active = catalog.active()
    assert active is not None
    assert (active.version, active.previous) == (merged.version, "v1")
    assert catalog.roll_back().version == "v1"
    assert opened(workspace).passage("p1") is None


def test_a_version_stays_of_its_kind_unless_another_is_asked_for(workspace: Workspace, report: Reporter) -> None:
    catalog = catalog_of(workspace)
    build(workspace, CORPUS, "v2", IndexSettings(kind="sq8", lexical=True, language="none", shards=2))
    catalog.activate("v2")
    catalog.changes.append([put(workspace, "x", 3)])
    merged = run(config_of(workspace, index__activate=False), workspace, report)
    assert (merged.kind, merged.lexical, merged.language, len(merged.shards)) == ("sq8", True, "none", 2)
    flags = {"index__kind": "flat", "index__shards": 1, "index__lexical": False}
    other = run(config_of(workspace, **flags), workspace, report)
    assert (other.kind, other.lexical, len(other.shards)) == ("flat", False, 1)
    assert other.version != merged.version


def test_a_damaged_result_of_an_earlier_merge_is_made_again(workspace: Workspace, report: Reporter) -> None:
    catalog = catalog_of(workspace)
    catalog.changes.append([Change.delete("p1")])
    merged = run(config_of(workspace, index__activate=False), workspace, report)
    (catalog.folder / merged.version / "index-000.faiss").write_bytes(b"")
    assert run(config_of(workspace), workspace, report).version == merged.version
    assert opened(workspace).rows == 19


def test_one_merge_at_a_time(workspace: Workspace, report: Reporter) -> None:
    catalog_of(workspace).changes.append([Change.delete("p1")])
    with (
        locked(workspace.local_folder("index") / "merge.lock"),
        pytest.raises(UserError, match="Another merge is at work"),
    ):
        run(config_of(workspace), workspace, report)
    assert run(config_of(workspace), workspace, report).rows == 19


def test_what_cannot_be_merged_is_told(workspace: Workspace, report: Reporter, tmp_path: Path) -> None:
    catalog = catalog_of(workspace)
    with pytest.raises(UserError, match=r"no index .*run `causalneg index` first"):
        run(load_config(), Workspace(str(tmp_path / "empty")), report)
    catalog.changes.append([Change.delete(p.id) for p in CORPUS])
    with pytest.raises(UserError, match="every passage"):
        run(config_of(workspace), workspace, report)
    catalog.changes.append([put(workspace, "x", 1)])
    (workspace.local_folder("model") / "config.json").write_text("{}")  # trained again
    with pytest.raises(UserError, match=r"v1 was encoded with trained .*run `causalneg index`"):
        run(config_of(workspace), workspace, report)
    shutil.rmtree(catalog.folder_of("v1"))
    with pytest.raises(UserError, match="no index"):
        run(config_of(workspace), workspace, report)


def test_a_version_is_merged_with_its_own_encoder_though_another_was_trained(
    workspace: Workspace, report: Reporter
) -> None:
    catalog = catalog_of(workspace)
    keep_model(find_model(catalog, read_manifest(catalog.folder_of("v1"))), catalog.model_folder(_fingerprint(catalog)))
    (workspace.local_folder("model") / "config.json").write_text("{}")  # trained again
    catalog.changes.append([put(workspace, "x", 1)])
    merged = run(config_of(workspace), workspace, report)
    assert merged.model.fingerprint == _fingerprint(catalog)


def _fingerprint(catalog: Catalog) -> str:
    return read_manifest(catalog.folder_of("v1")).model.fingerprint


def _command(workspace: Workspace) -> subprocess.Popen[bytes]:
    flags = ["--merge", "true", "--activate", "false", "--workspace", workspace.root_url]
    command = [sys.executable, "-m", "causalneg.cli", "index", *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_merge_as_a_command_is_killed_and_done_again(workspace: Workspace) -> None:
    catalog = catalog_of(workspace)
    catalog.changes.append([put(workspace, f"x{n}", n) for n in range(20)] + [Change.delete("p2")])
    before = opened(workspace)
    for wait in (0.0, 0.1, 0.3):
        process = _command(workspace)
        while process.poll() is None and not (catalog.folder / "merge.lock").exists():
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (catalog.folder / "merge.lock").unlink()
        active = catalog.active()
        assert active is not None
        assert active.version == "v1"
        assert answers(opened(workspace)) == answers(before)
    assert _command(workspace).wait() == 0
    assert sorted(path.name for path in catalog.folder.glob(".*")) == []
    (merged,) = [m for m in catalog.versions() if m.version != "v1"]
    assert catalog.active().version == "v1"  # type: ignore[union-attr]
    catalog.activate(merged.version)
    assert answers(opened(workspace)) == answers(before)
