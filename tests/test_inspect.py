"""What `causalneg inspect` says of a workspace, and that it leaves it as it is."""

import io
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_samples import mined, negative, write_relabelled

from causalneg.cli import main
from causalneg.config import MineSettings, load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.inspection import lengths
from causalneg.inspection.alike import NEAR, QueryIndex, words_of
from causalneg.inspection.findings import Findings
from causalneg.inspection.run import run
from causalneg.records import Failure, Mined, Negative, Passage, Qrel, Query
from causalneg.workspace import Counts, Workspace

QUERIES = {
    "t0": "Who built the first steam engine?",
    "t1": "Where do the storks go in winter",
    "t2": "What is a comet",
    "e0": "who built the FIRST steam engine",  # the same as t0
    "e1": "Where do the storks go in late winter",  # 7 of 8 words of t1
    "e2": "What is a bridge",  # 3 of 5
    "t9": "Judged in both splits",
}


def fill(workspace: Workspace) -> Workspace:
    """Write an import of two splits and a mine stage."""
    stage = workspace.begin("import", {"import": load_config().import_}, [])
    corpus = [Passage(id=f"p{i}", title="T" if i == 0 else "", text="word " * (i + 1)) for i in range(9)]
    stage.workspace.write_rows("corpus", "part-0", Passage, corpus[:4])
    stage.workspace.write_rows("corpus", "part-1", Passage, corpus[4:])
    stage.workspace.write_rows("queries", "part-0", Query, [Query(id=i, text=t) for i, t in QUERIES.items()])
    train = [Qrel(query_id=q, passage_id=p) for q, p in (("t0", "p0"), ("t1", "p1"), ("t2", "p2"), ("t9", "p3"))]
    train.append(Qrel(query_id="t0", passage_id="p8", score=0))
    test = [("e0", "p0"), ("e1", "p4"), ("e2", "p5"), ("t9", "p6")]
    rows = [*train, *(Qrel(query_id=q, passage_id=p, split="test") for q, p in test)]
    stage.workspace.write_rows("qrels", "part-0", Qrel, rows)
    stage.finish(Counts(rows_in=len(QUERIES), accepted=len(QUERIES)))
    stage = workspace.begin("mine", {"mine": MineSettings(num_negatives=2)}, ["import"])
    candidates = [mined("t0", "p4"), mined("t1", "p4"), mined("t1", "p7")]
    candidates += [
        mined("t0", f"p{i}", "rejected", rejected_by=why) for i, why in ((0, "known"), (5, "far"), (6, "far"))
    ]
    stage.workspace.write_rows("mined", "part-0", Mined, candidates)
    stage.finish(Counts(rows_in=6, accepted=3, rejected=3))
    return workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with an import of two splits and mined negatives."""
    return fill(Workspace(str(tmp_path / "ws")))


def look(workspace: Workspace, **settings: Any) -> Findings:
    flags = {f"inspect.{name}": value for name, value in settings.items()}
    return run(load_config(None, flags), workspace, Reporter(io.StringIO()))


def state(workspace: Workspace, stage: str) -> str:
    return next(s.state for s in look(workspace).stages if s.stage == stage)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


# Stages


def test_stages_show_state_counts_and_what_is_not_default(workspace: Workspace) -> None:
    found = {s.stage: s for s in look(workspace).stages}
    assert list(found) == ["import", "mine", "relabel", "generate", "train", "index", "evaluate"]
    assert (found["import"].state, found["mine"].state, found["train"].state) == ("done", "done", "absent")
    assert found["import"].settings == {}
    assert found["mine"].settings == {"num_negatives": 2}
    assert found["mine"].counts == Counts(rows_in=6, accepted=3, rejected=3)
    assert found["mine"].finished is not None


def test_a_begun_stage_is_unfinished(workspace: Workspace) -> None:
    workspace.begin("generate", {}, ["import", "mine"])
    assert state(workspace, "generate") == "unfinished"


def test_a_new_result_that_was_begun_is_shown_beside_the_one_that_is_there(workspace: Workspace) -> None:
    stage = workspace.begin("mine", {"mine": MineSettings(num_negatives=3)}, ["import"])
    stage.workspace.write_rows("mined", "part-0", Mined, [])
    output = io.StringIO()
    findings = run(load_config(), workspace, Reporter(output))
    found = next(s for s in findings.stages if s.stage == "mine")
    assert (found.state, found.building, found.settings) == ("done", True, {"num_negatives": 2})
    assert "new one" in output.getvalue()
    assert next(f for f in findings.folders if f.folder == "mined").rows == 6


def test_a_first_stage_that_was_only_begun_is_shown(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "ws"))
    workspace.begin("import", {}, [])
    assert state(workspace, "import") == "unfinished"


def test_a_stage_on_an_earlier_import_is_outdated(workspace: Workspace) -> None:
    stage = workspace.begin("import", {"other": 1}, [])
    stage.workspace.write_rows("qrels", "part-0", Qrel, [Qrel(query_id="t0", passage_id="p0")])
    stage.finish(Counts(rows_in=1, accepted=1))
    assert state(workspace, "mine") == "outdated"


def test_a_stage_that_lost_a_file_or_its_manifest_is_damaged(workspace: Workspace) -> None:
    workspace.write_bytes("manifests/train.json", b"{")
    assert state(workspace, "train") == "damaged"
    workspace.remove("mined/part-0.parquet")
    assert state(workspace, "mine") == "damaged"


# Folders


def test_false_negatives_are_counted_by_verdict(workspace: Workspace) -> None:
    write_relabelled(workspace, {("t0", "p4"): "answers", ("t1", "p4"): "no", ("t1", "p7"): "partly"})
    found = look(workspace, rows=1)
    (folder,) = (f for f in found.folders if f.folder == "relabelled")
    assert (folder.rows, folder.reasons) == (3, {"answers": 1, "partly": 1})
    assert state(workspace, "relabel") == "done"
    output = io.StringIO()
    run(load_config(), workspace, Reporter(output))
    assert "relabelled, rejected or failed: answers 1, partly 1" in output.getvalue()


def test_folders_show_rows_sizes_reasons_and_rows_drawn_by_seed(workspace: Workspace, tmp_path: Path) -> None:
    failure = Failure(stage="generate", input_id="i", kind="timeout", retryable=True, attempts=3, message="m")
    workspace.write_rows("failures", "part-0", Failure, [failure, failure])
    findings = look(workspace, rows=4)
    found = {f.folder: f for f in findings.folders}
    assert found["corpus"].rows == 9
    assert found["mined"].reasons == {"far": 2, "known": 1}
    assert found["failures"].reasons == {"timeout": 2}
    assert found["corpus"].reasons is None
    assert found["manifests"].rows is None
    on_disk = sum(p.stat().st_size for p in (tmp_path / "ws").rglob("*") if p.is_file())
    assert findings.bytes == sum(f.bytes for f in findings.folders) == on_disk
    assert look(workspace, rows=4) == findings
    sample = found["corpus"].sample
    assert len(sample) == 4
    assert sample == sorted(sample, key=lambda row: row["id"])
    assert [len(f.sample) for f in look(workspace, rows=0).folders if f.rows] == [0] * 5
    assert len(next(f for f in look(workspace, rows=99).folders if f.folder == "corpus").sample) == 9


def test_long_values_are_cut(workspace: Workspace) -> None:
    workspace.write_rows("corpus", "part-0", Passage, [Passage(id="long", text="x" * 10_000)] * 9)
    sample = next(f for f in look(workspace).folders if f.folder == "corpus").sample
    assert all(len(json.dumps(row)) < 400 for row in sample)


# Lengths


def test_lengths_are_those_of_the_texts(workspace: Workspace) -> None:
    generated = [negative("t0", "p0", "two words"), negative("t0", "p0", "not counted at all", "rejected")]
    workspace.write_rows("negatives", "part-0", Negative, generated)
    found = {f.what: f for f in look(workspace).lengths}
    words = sorted(len(t.split()) for t in QUERIES.values())
    queries = found["queries"]
    assert (queries.min, queries.median, queries.max) == (words[0], words[len(words) // 2], words[-1])
    assert (found["passages"].min, found["passages"].median, found["passages"].max) == (2, 5, 9)  # a title counts
    assert (found["train positives"].texts, found["train positives"].max) == (4, 4)
    assert (found["mined negatives"].of, found["mined negatives"].min, found["mined negatives"].max) == (2, 5, 8)
    assert (found["generated negatives"].texts, found["generated negatives"].median) == (1, 2)


def test_of_many_texts_some_are_measured(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "MOST_TEXTS", 3)
    passages = next(f for f in look(workspace).lengths if f.what == "passages")
    assert (passages.texts, passages.of, passages.min, passages.max) == (3, 9, 2, 7)  # every third


# Splits and what they share


def test_splits_and_overlap(workspace: Workspace) -> None:
    findings = look(workspace)
    assert [(s.split, s.queries, s.judgements, s.positives) for s in findings.splits] == [
        ("train", 4, 5, 4),
        ("test", 4, 4, 4),
    ]
    (overlap,) = findings.overlap
    assert (overlap.split, overlap.queries, overlap.same_queries, overlap.near_queries) == ("test", 4, 2, 1)
    assert [(a.query_id, a.train_query_id) for a in overlap.examples] == [("e0", "t0"), ("t9", "t9"), ("e1", "t1")]
    assert (overlap.positives, overlap.positives_in_train, overlap.negatives_in_train) == (4, 1, 1)


SENTENCES = st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=9).map(" ".join), max_size=12)


@given(SENTENCES, SENTENCES)
def test_near_queries_are_those_that_brute_force_finds(held: list[str], probes: list[str]) -> None:
    index = QueryIndex((str(n), text) for n, text in enumerate(held))
    for probe in probes:
        own = set(words_of(probe))
        near = [
            str(n)
            for n, text in enumerate(held)
            if len(own & set(words_of(text))) / len(own | set(words_of(text))) >= NEAR
        ]
        assert index.near(probe) == sorted(near)
        assert index.same(probe) == [str(n) for n, text in enumerate(held) if text == probe]


def test_texts_without_words_are_not_all_the_same() -> None:
    index = QueryIndex([("a", "???"), ("b", "!"), ("c", "")])
    assert (index.same("???"), index.near("!"), index.same(" ")) == (["a"], ["b"], ["c"])


# Output


def test_tables_name_everything_and_take_texts_as_they_are(workspace: Workspace) -> None:
    workspace.write_rows("queries", "part-0", Query, [Query(id="t0", text="[/b] :smile: [red]")])
    report = Reporter(io.StringIO())
    run(load_config(), workspace, report)
    text = report.console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("Stages", "Folders", "Splits", "Words", "far 2, known 1", "num_negatives 2", "[/b]", "[red]"):
        assert part in text


def test_the_command_changes_nothing_and_prints_json(
    workspace: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    outputs = []
    for arguments in (["ws", "--json"], ["--json", "ws"], ["--workspace", "ws", "--json", "--rows", "3"]):
        assert main(["inspect", *arguments]) == 0
        seen = capfd.readouterr()
        assert seen.err == ""
        outputs.append(Findings.model_validate_json(seen.out))
    assert outputs[0] == outputs[1] == outputs[2]
    assert main(["inspect", "ws"]) == 0
    assert "Stages" in capfd.readouterr().out
    assert files(tmp_path) == before


def test_a_workspace_in_an_object_store_can_be_inspected() -> None:
    workspace = fill(Workspace(f"memory://{uuid.uuid4().hex}/ws"))
    findings = look(workspace)
    assert {f.folder for f in findings.folders} == {"corpus", "manifests", "mined", "qrels", "queries"}
    assert findings.bytes > 0
    workspace.remove("")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nowhere"], ["nowhere", "causalneg import"]),
        (["empty"], ["empty", "holds nothing", "causalneg import"]),
        (["file"], ["file is a file"]),
        (["ws", "--rows", "-1"], ["inspect.rows"]),
        (["ws", "--jsn"], ["--jsn", "'--json'"]),
        (["ws", "other"], ["other"]),
    ],
)
def test_a_mistake_is_one_line(
    workspace: Workspace,
    tmp_path: Path,
    arguments: list[str],
    parts: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["inspect", *arguments]) == 2
    seen = capfd.readouterr()
    (line,) = seen.err.splitlines()
    assert seen.out == ""
    assert all(part in line for part in parts)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["qrels", "mined", "corpus"])
def test_a_torn_file_is_named(workspace: Workspace, name: str) -> None:
    whole = workspace.read_bytes(f"{name}/part-0.parquet")
    workspace.write_bytes(f"{name}/part-0.parquet", whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{name}/part-0\.parquet is damaged"):
        look(workspace)


def test_rows_of_another_version_are_named(workspace: Workspace) -> None:
    workspace.write_rows("mined", "part-0", Query, [Query(id="1", text="x")])
    with pytest.raises(UserError, match=r"mined/part-0\.parquet has no column 'passage_id'"):
        look(workspace)
