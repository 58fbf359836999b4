"""Mined passages that were found to answer their query: in the join that training and export read."""

from pathlib import Path

import pytest
from row_samples import LINEAGE, mined, negative, write_relabelled

from causalneg.config import load_config
from causalneg.examples import RowIds, read_selection
from causalneg.false_negatives import verdict_stages
from causalneg.generation.drafts import Drafts
from causalneg.generation.finish import write_batch
from causalneg.generation.rows import Step
from causalneg.pipeline import stages_of
from causalneg.records import Analysis, FalseNegative, Mined, Negative, Outcome, Qrel
from causalneg.workspace import Counts, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two train queries, the first with two positives, and four mined negatives each."""
    made = Workspace(str(tmp_path / "ws"))
    stage = made.begin("import", {}, [])
    qrels = [Qrel(query_id=q, passage_id=p) for q, p in (("q", "p"), ("q", "p2"), ("r", "p3"))]
    stage.workspace.write_rows("qrels", "part-0", Qrel, qrels)
    stage.finish(Counts(rows_in=3, accepted=3))
    stage = made.begin("mine", {}, ["import"])
    rows = [mined(q, i) for q in ("q", "r") for i in "abcd"]
    stage.workspace.write_rows("mined", "part-0", Mined, [*rows, mined("q", "x", "rejected")])
    stage.finish(Counts(rows_in=9, accepted=8, rejected=1))
    return made


def generate(workspace: Workspace, answering: list[str]) -> Negative:
    stage = workspace.begin("generate", {"answering": answering}, ["import", "mine"])
    if answering:
        found = [FalseNegative(query_id="q", passage_id=i, whole=True) for i in answering]
        stage.workspace.write_rows("answering", "part-0", FalseNegative, found)
    made = negative("q", "p", "generated")
    stage.workspace.write_rows("negatives", "part-0", Negative, [made])
    stage.finish(Counts(rows_in=2, accepted=1, rejected=1))
    return made


def rows(workspace: Workspace, mined_per_query: int = 2, **how: str) -> list[tuple[str, str, str]]:
    selection = read_selection(workspace, mined_per_query, 0, **how)  # type: ignore[arg-type]
    return [(r.query_id, r.positive_id, "".join(r.mined)) for r in selection.rows]


def test_the_next_ones_take_the_places_of_false_negatives(workspace: Workspace) -> None:
    assert rows(workspace) == [("q", "p", "ab"), ("q", "p2", "ab"), ("r", "p3", "ab")]
    write_relabelled(workspace, {("q", "a"): "answers", ("q", "b"): "no", ("q", "c"): "partly", ("r", "b"): "no"})
    assert rows(workspace) == [("q", "p", "bd"), ("q", "p2", "bd"), ("r", "p3", "ab")]
    assert read_selection(workspace, 2, 0).left_out == 2


def test_kept_they_are_negatives_as_before(workspace: Workspace) -> None:
    before = rows(workspace)
    write_relabelled(workspace, {("q", "a"): "answers"})
    assert rows(workspace, false="keep") == before
    assert read_selection(workspace, 2, 0, "keep").left_out == 0


def test_promoted_they_are_positives_of_further_pairs_where_they_answer_as_a_whole(workspace: Workspace) -> None:
    write_relabelled(workspace, {("q", "c"): "answers", ("q", "a"): "partly", ("r", "a"): "answers"})
    assert rows(workspace, 9, false="promote") == [
        ("q", "p", "bd"),
        ("q", "p2", "bd"),
        ("r", "p3", "bcd"),
        ("q", "c", "bd"),
        ("r", "a", "bcd"),
    ]
    selection = read_selection(workspace, 9, 0, "promote")
    assert (selection.pairs, selection.left_out, selection.promoted) == (5, 3, 2)


def test_what_an_analysis_found_counts_too(workspace: Workspace) -> None:
    made = generate(workspace, ["b"])
    assert verdict_stages(workspace) == ["generate"]
    assert rows(workspace) == [("q", "p", "ac"), ("q", "p2", "ac"), ("r", "p3", "ab")]
    # Both found one of them: it is left out once, and promoted once.
    write_relabelled(workspace, {("q", "b"): "partly", ("q", "a"): "answers"})
    assert verdict_stages(workspace) == ["relabel", "generate"]
    selection = read_selection(workspace, 9, 3, "promote")
    assert selection.rows == [
        RowIds("q", "p", ("c", "d"), (made.id,)),
        RowIds("q", "p2", ("c", "d"), ()),
        RowIds("r", "p3", ("a", "b", "c", "d"), ()),
        RowIds("q", "a", ("c", "d"), ()),
        RowIds("q", "b", ("c", "d"), ()),
    ]
    assert selection.left_out == 2


def test_what_an_analysis_names_is_a_row_of_its_stage(workspace: Workspace) -> None:
    texts = dict.fromkeys(("core_need", "how_positive_answers", "answer_boundary"), "")
    ids = {"id": "a", "query_id": "q", "positive_id": "p"}
    found = Analysis(**ids, **texts, requirements=[], lineage=LINEAGE, answering=["b", "d"])
    spent = dict.fromkeys(("accepted", "rejected", "requests", "prompt_tokens", "cached_tokens", "generated_tokens"), 0)
    drafts = Drafts(workspace, "key")
    outcome = Outcome(input_id="pair", query_id="q", positive_id="p", status="rejected", **spent)
    drafts.write_outcomes("000000", [outcome])
    stage = workspace.begin("generate", {}, ["import", "mine"])
    write_batch(stage.workspace, drafts, "000000", [Step(pair_id="pair", analysis=found)])
    stage.finish(Counts(rows_in=1, accepted=0, rejected=1))
    assert rows(workspace, 9) == [("q", "p", "ac"), ("q", "p2", "ac"), ("r", "p3", "abcd")]


def test_stages_that_found_nothing_determine_nothing(workspace: Workspace) -> None:
    generate(workspace, [])
    write_relabelled(workspace, {("q", "a"): "no"})
    assert verdict_stages(workspace) == []


def test_a_candidate_that_was_rejected_when_mined_is_none_either_way(workspace: Workspace) -> None:
    write_relabelled(workspace, {("q", "x"): "answers", ("q", "gone"): "answers"})
    assert rows(workspace, false="promote") == [("q", "p", "ab"), ("q", "p2", "ab"), ("r", "p3", "ab")]


def test_verdicts_hold_for_what_is_mined_anew_and_not_for_other_data(workspace: Workspace) -> None:
    write_relabelled(workspace, {("q", "a"): "answers"})
    stage = workspace.begin("mine", {"other": 1}, ["import"])
    stage.workspace.write_rows("mined", "part-0", Mined, [mined("q", "a"), mined("q", "d")])
    stage.finish(Counts(rows_in=2, accepted=2))
    assert rows(workspace) == [("q", "p", "d"), ("q", "p2", "d")]
    stage = workspace.begin("import", {"other": 1}, [])
    stage.workspace.write_rows("qrels", "part-0", Qrel, [Qrel(query_id="q", passage_id="p")])
    stage.finish(Counts(rows_in=1, accepted=1))
    assert rows(workspace) == [("q", "p", "ad")]


def test_all_stages_include_relabel_only_where_it_is_asked_for() -> None:
    assert "relabel" not in stages_of(load_config())
    stages = stages_of(load_config(None, {"relabel.enabled": True}))
    assert stages[:4] == ["import", "mine", "relabel", "generate"]
