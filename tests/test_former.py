"""A workspace of 0.1.0, which had the package's version in its keys: nothing done in it is done again.

`former/` holds the manifests of one: six passages and three queries, imported, mined, generated and indexed, and a
training that was begun.
"""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.generation.job import prepare
from causalneg.generation.run import run as generate
from causalneg.indexing.run import run as index
from causalneg.inspection.stages import find_stages
from causalneg.mining.run import run as mine
from causalneg.sources.run import run as import_data
from causalneg.training.run import _RESOURCES
from causalneg.workspace import Counts, Manifest, StageRun, Workspace

MANIFESTS = Path(__file__).parent / "former"
CANDIDATES, DRAFTS = "9f64b5bfe29268b8bc1483a5", "3fe34db5fc74f1305915ba62"
LLM = {"llm": "embedded:minilm-l6"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data, imported and mined now: rows are written as they were."""
    folder = tmp_path_factory.mktemp("former")
    data = folder / "data"
    (data / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "text": f"What is known about number {n} fills a book."} for n in range(6)]
    (data / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    queries = [{"_id": f"q{n}", "text": f"What is known about number {n}?"} for n in range(3)]
    (data / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (data / "qrels" / "train.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(3)))
    workspace = Workspace(str(folder / "ws"))
    import_data(load_config(flags={"import.source": str(data)}), workspace, Reporter(io.StringIO()))
    mine(load_config(), workspace, Reporter(io.StringIO()))
    return folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """What 0.1.0 left: its manifests, candidates and drafts under its keys, a training in the place of its result."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    workspace = Workspace("ws")
    shutil.rmtree("ws/manifests")
    shutil.copytree(MANIFESTS, "ws/manifests")
    (found,) = Path("ws/candidates").iterdir()
    found.rename(f"ws/candidates/{CANDIDATES}")
    workspace.write_bytes(f"drafts/{DRAFTS}/pairs.json", b'{"pairs": 3}')
    for stage in ("generate", "index"):
        for name in json.loads(workspace.read_bytes(f"manifests/{stage}.json"))["files"]:
            workspace.write_bytes(name, b"as it was")
    prompts = workspace.require("generate").config["prompts"]
    monkeypatch.setattr("causalneg.generation.job.prompts_version", lambda: prompts)
    workspace.write_bytes("checkpoints/step-00000005/state.json", b"{}")
    workspace.write_bytes("training/log.jsonl", b'{"step": 1}\n')
    return workspace


def said(stage: Any, workspace: Workspace, **flags: Any) -> str:  # noqa: ANN401 - the run of any stage
    output = io.StringIO()
    stage(load_config(flags={n.replace("__", "."): v for n, v in flags.items()}), workspace, Reporter(output))
    return output.getvalue()


def train(workspace: Workspace, **changes: Any) -> StageRun:
    """Begin training as the stage does."""
    settings = load_config().train.model_dump(mode="json", exclude=_RESOURCES)
    encoder = {"name": "embedded:minilm-l6", "fingerprint": "f"}
    return workspace.begin(
        "train", {"encoder": encoder, "seed": 0, "train": settings | changes}, ["import", "mine", "generate"]
    )


def test_what_is_done_is_not_done_again(workspace: Workspace) -> None:
    before = {p: p.read_bytes() for p in Path("ws").rglob("*") if p.is_file()}
    assert "import: already done (6 passages)" in said(import_data, workspace, import__source="data")
    assert "mine: already done (15 negatives)" in said(mine, workspace)
    assert "generate: already done (3 negatives)" in said(generate, workspace, **LLM)
    assert "index: already done" in said(index, workspace)
    states = {f.stage: f.state for f in find_stages(workspace, set(workspace.list_files([""])))}
    assert set(states.values()) == {"done", "unfinished", "absent"}
    assert states["train"] == "unfinished"
    assert {p: p.read_bytes() for p in Path("ws").rglob("*") if p.is_file()} == before


def test_other_settings_of_then_are_other_settings(workspace: Workspace) -> None:
    assert "mine: mine.num_negatives changed" not in said(mine, workspace)
    assert "mine.num_negatives changed" in said(mine, workspace, mine__num_negatives=2)


def test_candidates_are_not_searched_and_drafts_not_paid_again(workspace: Workspace) -> None:
    assert prepare(load_config(flags=LLM), workspace).key == DRAFTS
    assert prepare(load_config(flags=LLM | {"generate.candidates": 7}), workspace).key != DRAFTS
    output = said(mine, workspace, mine__num_negatives=2)
    assert "searching" not in output
    assert [p.name for p in Path("ws/candidates").iterdir()] == [CANDIDATES]


def test_a_result_made_again_alike_is_known_as_before(workspace: Workspace) -> None:
    workspace.remove("rejected")
    former = workspace.require("mine").former_digest
    for stage, folders, inputs in (("import", ("corpus", "queries", "qrels"), []), ("mine", ("mined",), ["import"])):
        run = workspace.begin(stage, {"now": 1}, inputs)  # type: ignore[arg-type]
        for folder in folders:
            shutil.copytree(workspace.local_folder(folder), run.workspace.local_folder(folder))
        made: Manifest = run.finish(Counts(rows_in=1, accepted=1))
    assert made.revision == 1
    assert made.former_digest == former
    assert prepare(load_config(flags=LLM), workspace).key == DRAFTS
    assert not workspace.is_outdated("generate")
    assert "already done" in said(generate, workspace, **LLM)


def test_a_training_that_was_begun_goes_on_and_another_does_not(workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree("ws", "other")
    stage = train(workspace)
    assert stage.resumed
    assert stage.workspace.list_files(["checkpoints", "training"]) == [
        "checkpoints/step-00000005/state.json",
        "training/log.jsonl",
    ]
    other = train(Workspace("other"), epochs=9)
    assert not other.resumed
    for there in (workspace, Workspace("other")):
        assert there.list_files(["checkpoints", "training"]) == []
        assert not there.exists("manifests/train.started")
        assert train(there, epochs=3 if there is workspace else 9).resumed
