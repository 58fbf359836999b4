"""`causalneg compare`: what is printed, and what is said of mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest

from causalneg.cli import main
from causalneg.config import CompareSettings
from causalneg.evaluation.compare import compare, remarks
from causalneg.evaluation.metrics import compute
from causalneg.evaluation.significance import holm, paired
from causalneg.evaluation.trec import run_lines
from causalneg.records import Passage, Qrel, Query
from causalneg.workspace import Counts, Workspace

QUERIES = [f"q{n}" for n in range(30)]
QRELS = {q: {f"p{n}": 1} for n, q in enumerate(QUERIES)}


def _run(seed: int, noise: float) -> dict[str, dict[str, float]]:
    """Return a run over 30 passages, one of them relevant to each query."""
    rng = np.random.default_rng(seed)
    scores = np.eye(30) + noise * rng.normal(size=(30, 30))
    return {
        q: {f"p{n}": float(np.float32(s)) for n, s in enumerate(row)} for q, row in zip(QUERIES, scores, strict=True)
    }


RUNS = {"a": _run(0, 1.0), "b": _run(1, 0.3), "c": _run(2, 1.0)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with runs, judgements, and a workspace that holds the first two runs."""
    monkeypatch.chdir(tmp_path)
    for name, run in RUNS.items():
        (tmp_path / f"{name}.trec").write_text(run_lines(run, name))
    (tmp_path / "qrels.txt").write_text("".join(f"{q} 0 {p} 1\n" for q, own in QRELS.items() for p in own))
    workspace = Workspace("workspace")
    stage = workspace.begin("import", {}, [])
    stage.workspace.write_rows("corpus", "0", Passage, [Passage(id=f"p{n}", text="text") for n in range(30)])
    stage.workspace.write_rows("queries", "0", Query, [Query(id=q, text="text") for q in [*QUERIES, "lost"]])
    qrels = [Qrel(query_id=q, passage_id=p, split="test") for q, own in QRELS.items() for p in own]
    qrels += [Qrel(query_id="lost", passage_id="gone", split="test"), Qrel(query_id="q0", passage_id="p0", split="one")]
    stage.workspace.write_rows("qrels", "0", Qrel, qrels)
    stage.finish(Counts(rows_in=1, accepted=1))
    for name, other in (("base", "a"), ("trained", "b")):
        workspace.write_bytes(f"runs/{name}.trec", run_lines(RUNS[other], name).encode())
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_every_run_is_compared_with_the_first(capfd: pytest.CaptureFixture[str]) -> None:
    measures = ["nDCG@10", "RR@10"]
    arguments = ["--qrels", "qrels.txt", "--measures", "[nDCG@10, RR@10]", "--seed", "3", "--resamples", "500"]
    assert main(["compare", "a.trec", "--json", "b.trec", *arguments, "c.trec"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["queries"] == 30
    scores = {name: compute(measures, QRELS, run) for name, run in RUNS.items()}
    assert [(r["name"], r["missing"], r["unjudged"]) for r in found["runs"]] == [(f"{n}.trec", 0, 0) for n in "abc"]
    assert [r["mean"] for r in found["runs"]] == [pytest.approx(scores[n].mean) for n in "abc"]

    pairs = [(measure, run) for measure in measures for run in "bc"]
    expected = [
        paired([scores[r].per_query[m][q] for q in QUERIES], [scores["a"].per_query[m][q] for q in QUERIES], 3, 500)
        for m, r in pairs
    ]
    differences = found["differences"]
    assert [(d["measure"], d["run"]) for d in differences] == [(m, f"{r}.trec") for m, r in pairs]
    for one, other in zip(differences, expected, strict=True):
        assert {name: one[name] for name in other.model_dump()} == pytest.approx(other.model_dump())
    assert [d["p_randomisation_holm"] for d in differences] == pytest.approx(
        holm([p.p_randomisation for p in expected])
    )
    assert [d["p_t_holm"] for d in differences] == pytest.approx(holm([p.p_t for p in expected]))
    assert differences[0]["p_t_holm"] < 0.05 < differences[1]["p_t_holm"]


def test_runs_of_the_workspace_are_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert main(["compare", "base", "trained", "c.trec", "--output", "page.html"]) == 0
    seen = capfd.readouterr()
    assert seen.err == ""
    for part in ("30 queries", "base", "trained", "c.trec", "AP@100", "wins/ties/losses", "Holm over 10 tests"):
        assert part in seen.out
    text = (folder / "page.html").read_text()
    assert text.count("<svg") == 2
    assert "http" not in text
    assert sorted(folder.rglob("*")) == sorted([*before, folder / "page.html"])  # nothing in the workspace


def test_missing_queries_count_zero_and_are_said(folder: Path) -> None:
    half = {q: RUNS["a"][q] for q in QUERIES[:15]} | {"other": {"p": 1.0}}
    (folder / "half[bold].trec").write_text(run_lines(half, "half"))
    settings = CompareSettings(runs=["a.trec", "half[bold].trec"], measures=["R@100"], resamples=100)
    found, scores = compare(settings, Workspace("workspace"), 0)
    assert found.runs[1].mean == {"R@100": 0.5}
    assert scores["half[bold].trec"].per_query["R@100"]["q29"] == 0
    assert remarks(found) == [
        "half[bold].trec lacks 15 of the 30 queries; they count zero.",
        "half[bold].trec has 1 queries that are not judged; they do not count.",
    ]
    assert main(["compare", *settings.runs]) == 0


def test_judged_queries_without_a_positive_do_not_count(folder: Path) -> None:
    with (folder / "qrels.txt").open("a") as file:
        file.write("none 0 p1 0\n")
    settings = CompareSettings(runs=["a.trec", "b.trec"], qrels="qrels.txt", resamples=100)
    assert compare(settings, Workspace("nowhere"), 0)[0].queries == 30


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["a.trec"], ["two runs or more", "causalneg compare RUN_A RUN_B"]),
        ([], ["two runs or more"]),
        (["base", "base"], ["named twice"]),
        (["base", "nosuch"], ["no run file nosuch", "it has: base, trained"]),
        (["base", "no/such.trec"], ["no run file no/such.trec"]),
        (["base", "trained", "--split", "tset"], ["compare.split", "'tset'", "one, test"]),
        (["base", "trained", "--split", "one"], ["Two queries", "'one'"]),
        (["base", "trained", "--measures", "[nope]"], ["compare.measures: 'nope'"]),
        (["base", "trained", "--measures", "[]"], ["compare.measures names no measure"]),
        (["base", "trained", "--qrels", "absent.txt"], ["absent.txt does not exist"]),
        (["base", "qrels.txt"], ["qrels.txt, line 1", "6 fields"]),
        (["base", "foreign.trec"], ["None of the 30 queries of foreign.trec", "'xq0'", "'q0'", "same data set"]),
        (["base", "trained", "--output", "no/such/page.html"], ["compare.output", "cannot be written"]),
        (["a.trec", "b.trec", "--workspace", "nowhere"], ["nowhere has no finished import"]),
        (["a.trec", "b.trec", "--qrel", "x"], ["--qrel", "'--qrels'"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    folder: Path, arguments: list[str], parts: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "foreign.trec").write_text(run_lines({f"x{q}": hits for q, hits in RUNS["a"].items()}, "x"))
    assert main(["compare", *arguments]) == 2
    seen = capfd.readouterr()
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
