"""Filters: which candidates become negatives, by known answers and by properties."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.config import MineSettings
from causalneg.duplicates import signatures
from causalneg.errors import UserError
from causalneg.mining.filters import decide as decide_all
from causalneg.mining.filters import fused_score
from causalneg.records import Candidate, Mined, Relation

PLAIN = MineSettings(near_duplicate=None)


def candidate(name: str, dense_rank: int | None, score: float, **more: Any) -> Candidate:
    return Candidate(query_id="q", passage_id=name, dense_rank=dense_rank, dense_score=score, **more)


def positive(score: float, name: str = "p", rank: int | None = None) -> Candidate:
    return candidate(name, rank, score, relation=Relation.POSITIVE)


def settings(**changes: Any) -> MineSettings:
    return MineSettings.model_validate(PLAIN.model_dump() | changes)


def decide(found: list[Candidate], signed: Mapping[str, np.ndarray], chosen: MineSettings, seed: int) -> list[Mined]:
    """Decide, and leave the rows of positives that no search found aside."""
    rows = decide_all(found, signed, chosen, seed)
    return [row for row in rows if row.relation is not Relation.POSITIVE or row.was_found]


def verdicts(rows: list[Mined]) -> dict[str, str | None]:
    return {row.passage_id: row.rejected_by for row in rows}


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    assert fused_score(candidate("a", 3, 0.5, bm25_rank=1)) == pytest.approx(1 / 61 + 1 / 63)
    assert fused_score(candidate("a", 2, 0.5)) == pytest.approx(1 / 62)
    assert fused_score(candidate("a", None, 0.5, bm25_rank=5)) == pytest.approx(1 / 65)


def test_rows_come_in_the_order_of_fused_ranks() -> None:
    # By hand: b 1/62 + 1/61 = 0.03252; a 1/61 + 1/65 = 0.03178; d 1/62 = 0.01613; c and e 1/63 = 0.01587.
    found = [
        candidate("e", 3, 0.1),
        candidate("c", None, 0.1, bm25_rank=3),
        candidate("a", 5, 0.1, bm25_rank=1),
        candidate("d", 2, 0.1),
        candidate("b", 1, 0.1, bm25_rank=2),
    ]
    rows = decide([*found, positive(0.9)], {}, PLAIN, 0)
    assert [row.passage_id for row in rows] == ["b", "a", "d", "c", "e"]


def test_a_cross_encoder_decides_order_and_margins() -> None:
    found = [
        candidate("first", 1, 0.1, cross_score=0.2),
        candidate("second", 2, 0.1, cross_score=0.5),
        candidate("near", 3, 0.1, cross_score=0.99),
        candidate("p", 4, 0.1, cross_score=1.0, relation=Relation.POSITIVE),
    ]
    rows = decide(found, {}, PLAIN, 0)
    assert [(r.passage_id, r.rejected_by) for r in rows] == [
        ("p", "known_positive"),
        ("near", "relative_margin"),
        ("second", None),
        ("first", None),
    ]
    assert rows[0].positive_score == 1.0


# 5 % of 0.8 below it is 0.76; 5 % of 0.2 below -0.2 is -0.21.
@pytest.mark.parametrize(
    ("top", "scores"), [(0.8, (0.81, 0.7601, 0.7599, -0.2)), (-0.2, (0.1, -0.2099, -0.2101, -0.9))]
)
def test_the_relative_margin(top: float, scores: tuple[float, ...]) -> None:
    found = [candidate(str(at), at + 1, score) for at, score in enumerate(scores)]
    reasons = list(verdicts(decide([*found, positive(top)], {}, PLAIN, 0)).values())
    assert reasons == ["relative_margin", "relative_margin", None, None]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [None] * 5),
        ({"min_score": 0.3}, [None, None, None, "min_score", "min_score"]),
        ({"max_score": 0.45}, ["max_score", None, None, None, None]),
        ({"absolute_margin": 0.45}, ["absolute_margin", "absolute_margin", None, None, None]),
        ({"range_min": 2}, ["rank_range", "rank_range", None, None, None]),
        ({"range_max": 2}, [None, None, "rank_range", "rank_range", "rank_range"]),
        ({"num_negatives": 2}, [None, None, "num_negatives", "num_negatives", "num_negatives"]),
        # range_min counts what the scores left, range_max what the searches found.
        ({"max_score": 0.45, "range_min": 1}, ["max_score", "rank_range", None, None, None]),
        ({"max_score": 0.45, "range_max": 2}, ["max_score", None, "rank_range", "rank_range", "rank_range"]),
        ({"num_negatives": 3, "sampling": "spread"}, [None, "num_negatives", None, "num_negatives", None]),
    ],
)
def test_each_filter(changes: dict[str, Any], expected: list[str | None]) -> None:
    found = [candidate(f"n{at}", at + 1, 0.5 - at / 10) for at in range(5)]
    rows = decide([*found, positive(0.8)], {}, settings(relative_margin=None, **changes), 0)
    assert [row.rejected_by for row in rows] == expected


def test_the_lowest_positive_sets_the_margin_and_every_positive_has_a_row() -> None:
    rows = decide_all([candidate("n", 1, 0.5), positive(0.9, "p1", 2), positive(0.5, "p2")], {}, PLAIN, 0)
    assert verdicts(rows) == {"n": "relative_margin", "p1": "known_positive", "p2": "known_positive"}
    assert {row.positive_score for row in rows} == {0.5}


def test_given_negatives_come_first_whatever_they_score() -> None:
    given = candidate("given", None, 0.95, relation=Relation.NEGATIVE)
    rows = decide([candidate("n", 1, 0.2), given, positive(0.9)], {}, settings(num_negatives=1, min_score=0.1), 0)
    assert verdicts(rows) == {"given": None, "n": "num_negatives"}


@pytest.mark.parametrize("sampling", ["top", "random", "spread"])
def test_given_negatives_are_taken_before_any_other(sampling: str) -> None:
    found = [candidate(f"n{at}", at + 1, 0.5 - at / 100) for at in range(20)]
    given = [candidate(f"g{at}", None, 0.3, relation=Relation.NEGATIVE) for at in range(2)]
    rows = decide([*found, *given, positive(0.9)], {}, settings(num_negatives=3, sampling=sampling), 0)
    kept = {row.passage_id for row in rows if row.verdict == "accepted"}
    assert {"g0", "g1"} < kept
    assert len(kept) == 3


def test_near_duplicates_of_positives_and_of_better_negatives_go() -> None:
    texts = {
        "p": "The lunar module Eagle landed in the Sea of Tranquility in July 1969 with two astronauts on board.",
        "copy": "the lunar module EAGLE landed in the Sea of Tranquility, in July 1969, with two astronauts on board",
        "other": "The command module stayed in orbit around the Moon with Michael Collins while they walked.",
        "again": "The command module stayed in orbit around the Moon with Michael Collins while they walked!",
        "new": "Geologists study basalt from the mare to learn how old the surface is.",
    }
    signed = dict(zip(texts, signatures(list(texts.values())), strict=True))
    found = [candidate(name, rank, 0.1) for rank, name in enumerate(("copy", "other", "again", "new"), 1)]
    rows = decide([*found, positive(0.9)], signed, MineSettings(), 0)
    assert verdicts(rows) == {
        "copy": "duplicate_of_positive",
        "other": None,
        "again": "duplicate_of_negative",
        "new": None,
    }
    # A given negative with the words of a positive is no negative either.
    given = candidate("copy", None, 0.1, relation=Relation.NEGATIVE)
    assert verdicts(decide([given, positive(0.9)], signed, MineSettings(), 0)) == {"copy": "duplicate_of_positive"}


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_named(score: float) -> None:
    with pytest.raises(UserError, match=r"passage 'n' for query 'q'"):
        decide([candidate("n", 1, score), positive(0.9)], {}, PLAIN, 0)


def test_a_query_without_its_positives_is_refused() -> None:
    with pytest.raises(ValueError, match="lack its positives"):
        decide([candidate("n", 1, 0.1)], {}, PLAIN, 0)


candidates = st.lists(
    st.builds(
        Candidate,
        query_id=st.just("q"),
        passage_id=st.integers(0, 30).map(str),
        relation=st.sampled_from([Relation.UNJUDGED, Relation.UNJUDGED, Relation.UNJUDGED, Relation.NEGATIVE]),
        bm25_rank=st.none() | st.integers(1, 50),
        bm25_score=st.none() | st.floats(0, 40),
        dense_rank=st.none() | st.integers(1, 50),
        dense_score=st.floats(-1, 1),
    ),
    unique_by=lambda c: c.passage_id,
    max_size=20,
)
chosen = st.builds(
    MineSettings,
    num_negatives=st.integers(1, 5),
    range_min=st.integers(0, 3),
    range_max=st.none() | st.integers(4, 12),
    min_score=st.none() | st.floats(-1, 0),
    max_score=st.none() | st.floats(0, 1),
    absolute_margin=st.none() | st.floats(0, 0.5),
    relative_margin=st.none() | st.floats(0, 0.5),
    near_duplicate=st.none() | st.floats(0.2, 1),
    sampling=st.sampled_from(["top", "random", "spread"]),
)
WORDS = ["sea", "moon", "rock"]
TEXTS = [" ".join(words) for words in itertools.product(WORDS, repeat=4)]
SIGNED = {str(n): row for n, row in enumerate(signatures(TEXTS[:31]))} | {"p": signatures(["sea sea sea sun"])[0]}


@given(candidates, chosen, st.floats(-1, 1), st.randoms())
def test_properties(found: list[Candidate], chosen: MineSettings, score: float, shuffler: Any) -> None:  # noqa: ANN401
    every = [*found, positive(score)]
    rows = decide(every, SIGNED, chosen, 3)
    kept = [row for row in rows if row.verdict == "accepted"]
    # Every candidate gets one verdict, and a reason goes with each rejection.
    assert sorted(row.passage_id for row in rows) == sorted(c.passage_id for c in found)
    assert all((row.rejected_by is None) == (row.verdict == "accepted") for row in rows)
    assert len(kept) <= chosen.num_negatives
    # Nothing is left out while there is room.
    if len(kept) < chosen.num_negatives:
        assert "num_negatives" not in verdicts(rows).values()
    for row in kept:
        if row.relation is Relation.UNJUDGED and chosen.absolute_margin is not None:
            assert row.score <= score - chosen.absolute_margin
    if chosen.near_duplicate is not None:
        for one, other in itertools.combinations(kept, 2):
            overlap = np.mean(SIGNED[one.passage_id] == SIGNED[other.passage_id])
            assert overlap < chosen.near_duplicate
    # The order in which candidates arrive decides nothing.
    shuffler.shuffle(every)
    assert decide(every, SIGNED, chosen, 3) == rows


@given(candidates, st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_stricter_margin_keeps_no_more(found: list[Candidate], score: float, one: float, other: float) -> None:
    loose, strict = sorted((one, other))

    def kept(margin: float) -> set[str]:
        rows = decide([*found, positive(score)], {}, settings(relative_margin=margin, num_negatives=99), 0)
        return {row.passage_id for row in rows if row.verdict == "accepted"}

    assert kept(strict) <= kept(loose)
