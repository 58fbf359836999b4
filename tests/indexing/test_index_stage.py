"""The stage `index`, from a workspace to a published version."""

import shutil
from pathlib import Path

import pytest
from index_samples import PASSAGES

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.run import run
from causalneg.indexing.store import open_index
from causalneg.models import resolve
from causalneg.runtime import ray_session
from causalneg.workspace import Counts, Workspace


def _said(report: Reporter) -> str:
    return report.console.file.getvalue()  # type: ignore[attr-defined]


def _versions(folder: Path) -> list[str]:
    return sorted(manifest.parent.name for manifest in folder.glob("*/manifest.json"))


@pytest.mark.ray
def test_the_stage_indexes_once_repairs_and_follows_training(workspace: Workspace, report: Reporter) -> None:
    with ray_session():  # one for all the runs below
        _follow_the_stage(workspace, report)


def _follow_the_stage(workspace: Workspace, report: Reporter) -> None:
    config = load_config(flags={"workspace": workspace.root_url})

    base = run(config, workspace, report)
    assert base.counts == Counts(rows_in=5, accepted=5)
    assert "no encoder is trained yet" in _said(report)
    folder = workspace.local_folder(f"index/{base.details['version']}")
    assert sorted(base.files) == [
        f"index/{folder.name}/{n}" for n in ("index-000.faiss", "manifest.json", "passages-000.arrow")
    ]

    model = resolve("embedded:minilm-l6")
    index = open_index(folder, model.fingerprint)
    assert index.manifest.dimension == 384
    assert [index.passages.get(row) for row in range(5)] == PASSAGES
    vectors = encode(load_encoder(model), ["capital of Italy", "fourth planet"], "query")
    assert [PASSAGES[row].id for row in index.search(vectors, 2)[1][:, 0]] == ["rome", "mars"]
    texts = [canary.text for canary in index.manifest.canaries]
    found = index.search(encode(load_encoder(model), texts, "passage"), 1)[1][:, 0]
    assert [PASSAGES[row].id for row in found] == [canary.id for canary in index.manifest.canaries]
    catalog = Catalog(folder.parent)
    assert catalog.active().version == folder.name

    assert run(config, workspace, report) == base
    assert "already done" in _said(report)

    # Killed after publishing and before the manifest: the version is kept. Damaged as well: built anew.
    inode = (folder / "index-000.faiss").stat().st_ino
    workspace.remove("manifests/index.json")
    (folder.parent / ".build-left").mkdir()
    run(config, workspace, report)
    assert (folder / "index-000.faiss").stat().st_ino == inode
    workspace.remove("manifests/index.json")
    (folder / "passages-000.arrow").write_bytes(b"")
    run(config, workspace, report)
    assert open_index(folder, model.fingerprint).passages.get(0) == PASSAGES[0]
    assert _versions(folder.parent) == [folder.name]

    # A trained encoder takes over; the older version stays.
    stage = workspace.begin("train", {}, ["import"])
    shutil.copytree(model.path, stage.workspace.local_folder("model"))
    (stage.workspace.local_folder("model") / "note.json").write_text("{}")
    stage.finish(Counts(rows_in=1, accepted=1))
    trained = run(config, workspace, report)
    assert trained.details["trained"]
    assert trained.details["fingerprint"] == resolve(str(workspace.local_folder("model"))).fingerprint

    # A training that was begun anew and did not end changes nothing.
    begun = workspace.begin("train", {"other": 1}, ["import"])
    begun.workspace.write_bytes("model/config.json", b"half")
    assert run(config, workspace, report) == trained
    assert _versions(folder.parent) == sorted([base.details["version"], trained.details["version"]])
    assert catalog.active().version == trained.details["version"]

    # Of another kind, measured with the real query, and left aside.
    aside = load_config(flags={"workspace": workspace.root_url, "index.kind": "sq8", "index.activate": False})
    other = run(aside, workspace, report)
    assert (other.details["kind"], other.details["recall"]) == ("sq8", 1.0)
    assert "of the 10 nearest passages of 1 held-out queries" in _said(report)
    assert catalog.active().version == trained.details["version"]


def test_without_an_import_there_is_nothing_to_index(tmp_path: Path, report: Reporter) -> None:
    workspace = Workspace(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="run `causalneg import` first"):
        run(load_config(), workspace, report)
