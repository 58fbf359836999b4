"""Pairs: every train query with each of its positives, joined in slices that give the same as one."""

from pathlib import Path

import pytest
from relabel_samples import mined_workspace
from row_samples import mined, write_relabelled

from causalneg.generation import pairs as module
from causalneg.generation.job import inputs_of
from causalneg.generation.pairs import train_pairs
from causalneg.records import Mined, Passage, Qrel, Query
from causalneg.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(str(tmp_path))
    made.write_rows("corpus", "0", Passage, [Passage(id=f"p{n}", text=f"Passage {n}.") for n in range(30)])
    made.write_rows("queries", "0", Query, [Query(id=f"q{n}", text=f"Query {n}?") for n in range(6)])
    rows = [Qrel(query_id=f"q{n}", passage_id=f"p{n}") for n in range(5)]
    rows += [Qrel(query_id="q0", passage_id="p9"), Qrel(query_id="q5", passage_id="p5", split="test")]
    made.write_rows("qrels", "0", Qrel, [*rows, Qrel(query_id="q1", passage_id="p8", score=0)])
    candidates = [mined(f"q{n}", f"p{m}", dense_score=m / 100) for n in range(5) for m in range(10, 29)]
    candidates.append(mined("q0", "p29", verdict="rejected"))
    made.write_rows("mined", "0", Mined, candidates)
    return made


def test_every_positive_of_a_train_query_is_a_pair(workspace: Workspace) -> None:
    rows = list(train_pairs(workspace))
    assert [(r.query.id, r.positive.id) for r in rows] == [
        ("q0", "p0"),
        ("q0", "p9"),
        ("q1", "p1"),
        ("q2", "p2"),
        ("q3", "p3"),
        ("q4", "p4"),
    ]
    assert [p.id for p in rows[0].other_positives] == ["p9"]
    assert len({r.id for r in rows}) == len(rows)


def test_references_are_the_best_accepted_candidates_with_the_scores_of_all(workspace: Workspace) -> None:
    first = next(train_pairs(workspace))
    assert [p.id for p in first.references] == [f"p{n}" for n in range(10, 25)]
    assert len(first.mined_scores) == 19


def test_slices_give_the_same_pairs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(train_pairs(workspace))
    monkeypatch.setattr(module, "_SLICE", 2)
    assert list(train_pairs(workspace)) == whole


def test_candidates_that_relabel_found_to_answer_are_no_references(tmp_path: Path) -> None:
    made = mined_workspace(str(tmp_path / "ws"))
    before = [[p.id for p in pair.references] for pair in train_pairs(made)]
    write_relabelled(made, {("q0", "m0-1"): "answers", ("q0", "m0-3"): "partly", ("q0", "m0-4"): "no"})
    pairs = list(train_pairs(made))
    assert [p.id for p in pairs[0].references] == ["m0-0", "m0-2", "m0-4"]
    assert len(pairs[0].mined_scores) == 3
    assert [[p.id for p in pair.references] for pair in pairs[1:]] == before[1:]
    assert inputs_of(made) == ["import", "mine", "relabel"]
