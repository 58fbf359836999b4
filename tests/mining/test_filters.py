"""Filters: which candidates become negatives, by known answers and by properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.mining.filters import Candidate, decide, fused_score
from causalneg.records import Mined


def dense(name: str, rank: int, score: float) -> Candidate:
    return Candidate(name, None, None, rank, score)


def verdicts(rows: list[Mined]) -> dict[str, str | None]:
    return {row.passage_id: row.rejected_by for row in rows}


candidates = st.lists(
    st.builds(
        Candidate,
        passage_id=st.integers(0, 30).map(str),
        bm25_rank=st.none() | st.integers(1, 50),
        bm25_score=st.none() | st.floats(0, 40),
        dense_rank=st.none() | st.integers(1, 50),
        dense_score=st.floats(-1, 1),
    ),
    unique_by=lambda candidate: candidate.passage_id,
    max_size=20,
)


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    assert fused_score(Candidate("a", 1, 9.0, 3, 0.5)) == pytest.approx(1 / 61 + 1 / 63)
    assert fused_score(Candidate("a", None, None, 2, 0.5)) == pytest.approx(1 / 62)
    assert fused_score(Candidate("a", 5, 3.0, None, 0.5)) == pytest.approx(1 / 65)


def test_rows_come_in_the_order_of_fused_ranks() -> None:
    # By hand: b 1/62 + 1/61 = 0.03252; a 1/61 + 1/65 = 0.03178; d 1/62 = 0.01613; c and e 1/63 = 0.01587.
    found = [
        Candidate("e", None, None, 3, 0.1),
        Candidate("c", 3, 2.0, None, 0.1),
        Candidate("a", 1, 9.0, 5, 0.1),
        Candidate("d", None, None, 2, 0.1),
        Candidate("b", 2, 8.0, 1, 0.1),
    ]
    assert [row.passage_id for row in decide("q", found, [], 0.9, 0.95, 9)] == ["b", "a", "d", "c", "e"]


def test_the_margin_with_a_positive_score() -> None:
    # 95 % of 0.8 is 0.76.
    found = [dense("above", 1, 0.81), dense("near", 2, 0.7601), dense("below", 3, 0.7599), dense("far", 4, -0.2)]
    assert verdicts(decide("q", found, [], 0.8, 0.95, 9)) == {
        "above": "relative_margin",
        "near": "relative_margin",
        "below": None,
        "far": None,
    }


def test_the_margin_with_a_negative_score() -> None:
    # 5 % of 0.2 below -0.2 is -0.21: what scores above that is too near.
    found = [dense("above", 1, 0.1), dense("near", 2, -0.2099), dense("below", 3, -0.2101), dense("far", 4, -0.9)]
    assert verdicts(decide("q", found, [], -0.2, 0.95, 9)) == {
        "above": "relative_margin",
        "near": "relative_margin",
        "below": None,
        "far": None,
    }


def test_reasons_are_given_in_order_and_scores_kept() -> None:
    found = [
        Candidate("p", 1, 9.0, 1, 0.8),
        dense("near", 2, 0.79),
        dense("n1", 3, 0.5),
        dense("n2", 4, 0.4),
        dense("n3", 5, 0.3),
        dense("late positive", 6, 0.2),
    ]
    rows = decide("q", found, ["p", "late positive"], 0.8, 0.95, 2)
    assert verdicts(rows) == {
        "p": "known_positive",
        "near": "relative_margin",
        "n1": None,
        "n2": None,
        "n3": "num_negatives",
        "late positive": "known_positive",
    }
    assert rows[0] == Mined(
        query_id="q",
        passage_id="p",
        bm25_rank=1,
        bm25_score=9.0,
        dense_rank=1,
        dense_score=0.8,
        positive_score=0.8,
        verdict="rejected",
        rejected_by="known_positive",
    )


@given(candidates, st.sets(st.integers(0, 30).map(str)), st.floats(-1, 1), st.floats(0.5, 1), st.integers(1, 5))
def test_properties(
    found: list[Candidate], positives: set[str], positive_score: float, margin: float, wanted: int
) -> None:
    rows = decide("q", found, sorted(positives), positive_score, margin, wanted)
    accepted = [row for row in rows if row.verdict == "accepted"]
    # Every candidate gets one verdict, and a reason goes with each rejection.
    assert sorted(row.passage_id for row in rows) == sorted(c.passage_id for c in found)
    assert all((row.rejected_by is None) == (row.verdict == "accepted") for row in rows)
    assert len(accepted) <= wanted
    assert not positives & {row.passage_id for row in accepted}
    assert all(row.dense_score < positive_score for row in accepted)
    # Nothing is left out while there is room.
    if len(accepted) < wanted:
        assert "num_negatives" not in verdicts(rows).values()
    # The order in which candidates arrive decides nothing.
    assert decide("q", found[::-1], sorted(positives), positive_score, margin, wanted) == rows


@given(candidates, st.floats(-1, 1), st.floats(0.5, 1), st.floats(0.5, 1))
def test_a_stricter_margin_keeps_no_more(found: list[Candidate], score: float, one: float, other: float) -> None:
    strict, loose = sorted((one, other))

    def kept(margin: float) -> set[str]:
        rows = decide("q", found, [], score, margin, len(found) + 1)
        return {row.passage_id for row in rows if row.verdict == "accepted"}

    assert kept(strict) <= kept(loose)
