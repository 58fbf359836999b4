"""Measures against values worked out by hand."""

import math

import pytest

from causalneg.errors import UserError
from causalneg.evaluation.metrics import compute, parse_measures

# Query a: positives p1 (2), p2 (1); found p9, p1, p8, p2. Query b: positive p3, found first.
QRELS = {"a": {"p1": 2, "p2": 1, "p9": 0}, "b": {"p3": 1}}
RUN = {"a": {"p9": 0.9, "p1": 0.8, "p8": 0.7, "p2": 0.6}, "b": {"p3": 0.5, "p1": 0.1}}


def test_values_agree_with_those_worked_out_by_hand() -> None:
    scores = compute(["nDCG@10", "RR@10", "R@2", "P@4", "AP", "Success@1"], QRELS, RUN)
    dcg = 2 / math.log2(3) + 1 / math.log2(5)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    expected = {
        "nDCG@10": (dcg / ideal, 1.0),
        "RR@10": (1 / 2, 1.0),
        "R@2": (1 / 2, 1.0),
        "P@4": (2 / 4, 1 / 4),
        "AP": ((1 / 2 + 2 / 4) / 2, 1.0),
        "Success@1": (0.0, 1.0),
    }
    assert list(scores.mean) == list(expected)
    for name, (a, b) in expected.items():
        assert scores.per_query[name] == pytest.approx({"a": a, "b": b})
        assert scores.mean[name] == pytest.approx((a + b) / 2)


def test_a_query_that_the_run_lacks_scores_zero() -> None:
    for run in ({"b": RUN["b"]}, {"a": {}, "b": RUN["b"]}):
        scores = compute(["nDCG@10", "RR@10", "R@10"], QRELS, run)
        assert scores.mean == pytest.approx({"nDCG@10": 0.5, "RR@10": 0.5, "R@10": 0.5})
        assert scores.per_query["RR@10"] == {"a": 0.0, "b": 1.0}


def test_a_query_without_judgement_does_not_count() -> None:
    assert compute(["RR@10"], {"b": QRELS["b"]}, RUN).mean == {"RR@10": 1.0}


@pytest.mark.parametrize("name", ["nDCG@1", "RR@1", "P@1", "R@1", "RR", "AP"])
def test_ties_are_broken_by_id_in_every_measure(name: str) -> None:
    run = {"a": {"x": 1.0, "y": 1.0}}
    assert compute([name], {"a": {"x": 1}}, run).mean[name] == 1.0
    assert compute([name], {"a": {"y": 1}}, run).mean[name] < 1.0


def test_ids_may_hold_anything() -> None:
    ids = ["a\0b", "a", "a b", "ä\n", ""]
    run = {q: {p: float(-n) for n, p in enumerate(ids)} for q in ids}
    qrels = {q: {p: 1} for q, p in zip(ids, ids, strict=True)}
    scores = compute(["RR"], qrels, run)
    assert scores.per_query["RR"] == pytest.approx({p: 1 / (n + 1) for n, p in enumerate(ids)})


def test_a_cutoff_beyond_the_run_and_negative_relevance_are_allowed() -> None:
    scores = compute(["R@100", "nDCG@100"], {"a": {"p9": -1, "p1": 1}}, RUN)
    assert scores.mean == pytest.approx({"R@100": 1.0, "nDCG@100": 1 / math.log2(3)})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nDGC@10", "is no measure of ir_measures; did you mean nDCG@10?"),
        ("MRRR(rel=2)@5", "did you mean MRR(rel=2)@5?"),
        ("xyzzy", "is no measure of ir_measures; they look like nDCG@10,"),
        ("", "is no measure"),
        ("R@x", "is no measure"),
        ("P@", "is no measure"),
        ("R@10;R@5", "is no measure"),
        ("R@٣", "is no measure"),
        ("nDCG@-1", "is no measure"),
        ("R", "needs its cutoff, as R@10"),
        ("IPrec", "needs its recall, as IPrec(recall=…)"),
        ("nDCG@0", "has a cutoff that is not from 1 to 999999"),
        ("nDCG@9999999", "has a cutoff that is not from 1 to 999999"),
        ("P(rel=0)@5", "cannot be computed here: Argument relevance_level should be positive"),
        ("R(foo=1)@5", "cannot be computed here: unsupported params found"),
        ("RBP(p=0.8)", "cannot be computed here: Unsupported measures"),
    ],
)
def test_a_measure_that_there_is_not_is_named_with_the_reason(name: str, said: str) -> None:
    with pytest.raises(UserError, match=r"^evaluate\.measures: ") as refusal:
        parse_measures(["RR@10", name])
    assert repr(name) in str(refusal.value)
    assert said in str(refusal.value)


def test_no_measure_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="names no measure"):
        parse_measures([])


def test_a_measure_under_two_names_is_taken_once() -> None:
    assert list(parse_measures(["RR", "R@5", "RR", "MRR", " Recall@5"])) == ["RR", "R@5"]


def _of_ir_measures() -> list[str]:
    """Every measure of ir_measures, with a cutoff where it takes one, that a package installed here computes."""
    import ir_measures

    names = []
    for name, kind in ir_measures.measures.registry.items():
        given = (
            {"cutoff": "@10", "recall": "@0.1"}.get(kind.AT_PARAM, "") if kind.AT_PARAM in kind.SUPPORTED_PARAMS else ""
        )
        required = {n for n, info in kind.SUPPORTED_PARAMS.items() if info.required} - {kind.AT_PARAM}
        if not required and ir_measures.DefaultPipeline.supports(ir_measures.parse_measure(name + given)):
            names.append(name + given)
    return names


@pytest.mark.parametrize("name", [*_of_ir_measures(), "P(rel=2)@1", "nDCG(gains={1:3})@5", "SetF(beta=0.5)"])
def test_every_measure_of_ir_measures_that_can_be_computed_here_is_taken(name: str) -> None:
    import ir_measures

    qrels = {"0": {"1": 2, "2": 1, "9": 0}, "1": {"3": 1}}
    run = {"0": {"9": 0.9, "1": 0.8, "8": 0.7, "2": 0.6}, "1": {"3": 0.5, "1": 0.1}}  # without ties
    expected = {m.query_id: m.value for m in ir_measures.iter_calc([ir_measures.parse_measure(name)], qrels, run)}
    assert compute([name], qrels, run).per_query[name] == pytest.approx(expected)
