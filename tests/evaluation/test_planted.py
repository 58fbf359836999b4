"""Planted counterfactuals: the pure core by hand, and a small workspace under a real encoder."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_samples import negative

from causalneg.config import EncodeSettings
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.evaluation.metrics import compute
from causalneg.evaluation.planted import (
    PlantedQuery,
    Planter,
    measure_planted,
    planted_above,
    planted_queries,
    with_planted,
)
from causalneg.models import resolve
from causalneg.records import Negative, Passage, Qrel, Query, ViolationType
from causalneg.vectors import embed_corpus
from causalneg.workspace import HELD_OUT, Counts, Workspace

# The pure core


def test_counts_agree_with_those_worked_out_by_hand() -> None:
    above = planted_above(
        {"a": 0.5, "b": 0.75, "c": 0.25, "unplanted": 1.0},
        {"a": [0.25, 0.75, 0.5], "b": [0.5, 0.25], "c": []},
    )
    assert above.per_query == {"a": 2, "b": 0, "c": 0}  # a tie is above
    assert (above.share, above.mean) == (1 / 3, 2 / 3)
    assert above.share_low == 0.0
    assert above.share < above.share_high <= 1


def test_the_interval_is_that_of_a_share_of_queries() -> None:
    planted = {str(n): [1.0] * 5 if n % 4 == 0 else [-1.0] for n in range(400)}
    above = planted_above(dict.fromkeys(planted, 0.0), planted, seed=1)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert (above.share, above.mean) == (0.25, 1.25)
    assert above.share - above.share_low == pytest.approx(half, rel=0.1)
    assert above.share_high - above.share == pytest.approx(half, rel=0.1)


def test_of_a_single_query_nothing_is_known_of_others() -> None:
    above = planted_above({"q": 0.5}, {"q": [0.75]})
    assert (above.share_low, above.share, above.share_high) == (0.0, 1.0, 1.0)


def test_a_query_without_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="'b' has no positive"):
        planted_above({"a": 0.5}, {"a": [], "b": []})
    with pytest.raises(ValueError, match="no query"):
        planted_above({"a": 0.5}, {})


_SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-2, 2).map(float))


@given(_SCORES, _SCORES, st.integers(1, 10))
def test_the_best_of_both_searches_are_those_of_one_search_of_both(
    corpus: Mapping[str, float], planted: Mapping[str, float], depth: int
) -> None:
    planted = {"\0" + passage: score for passage, score in planted.items()}

    def best(scores: Mapping[str, float]) -> dict[str, float]:
        return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:depth])

    found = with_planted(best(corpus), best(planted), depth)
    assert list(found.items()) == list(best({**corpus, **planted}).items())
    assert with_planted(best(corpus), {}, depth) == best(corpus)


# A workspace

PASSAGES = [
    Passage(id="rome", title="Rome", text="Rome is the capital of Italy."),
    Passage(id="paris", title="Paris", text="Paris is the capital of France."),
    Passage(id="moon", text="The Moon orbits the Earth in about 27 days."),
    Passage(id="bread", text="Bread is baked from flour and water."),
]
QUERIES = {
    "held": "What is the capital of Italy?",
    "trained": "What is bread made of?",
    "tested": "How long does the Moon take around the Earth?",
    "absent": "Who wrote Hamlet?",
    "bare": "Which city is the capital of France?",
}


def _negative(query: str, positive: str, text: str, violation: str = "entity_shift", **fields: str) -> Negative:
    made = negative(query, positive, text, **fields)
    return made.model_copy(update={"violation": ViolationType(violation)})


NEGATIVES = [
    _negative("held", "rome", "What is the capital of Italy?"),  # nothing is nearer to the query
    _negative("held", "rome", "Penguins swim in the cold sea.", "relation_break"),
    _negative("held", "rome", "The capital of Italy.", verdict="rejected"),
    _negative("trained", "bread", "What is bread made of?"),
    _negative("tested", "moon", "Penguins swim in the cold sea.", "numeric_violation"),
    _negative("absent", "hamlet", "Hamlet was written by no one."),
]


def _workspace(root: Path, held_out: list[str] | None) -> Workspace:
    workspace = Workspace(str(root))
    stage = workspace.begin("import", {}, [])
    stage.workspace.write_rows("corpus", "000000", Passage, PASSAGES[:3])
    stage.workspace.write_rows("corpus", "000001", Passage, PASSAGES[3:])
    stage.workspace.write_rows("queries", "000000", Query, [Query(id=i, text=t) for i, t in QUERIES.items()])
    qrels = [
        Qrel(query_id="held", passage_id="rome"),
        Qrel(query_id="held", passage_id="paris", score=0),
        Qrel(query_id="trained", passage_id="bread"),
        Qrel(query_id="trained", passage_id="bread", split="test"),
        Qrel(query_id="tested", passage_id="bread", score=0),  # no train pair
        Qrel(query_id="tested", passage_id="moon", split="test", score=2),
        Qrel(query_id="absent", passage_id="hamlet", split="test"),
        Qrel(query_id="bare", passage_id="paris", split="test"),
    ]
    stage.workspace.write_rows("qrels", "000000", Qrel, qrels)
    stage.finish(Counts(rows_in=4, accepted=4))
    workspace.write_rows("negatives", "000000", Negative, NEGATIVES[:3])
    workspace.write_rows("negatives", "000001", Negative, NEGATIVES[3:])
    if held_out is not None:
        workspace.write_table(HELD_OUT, pa.table({"query_id": pa.array(held_out, pa.string())}))
    return workspace


def _queries(workspace: Workspace) -> dict[str, PlantedQuery]:
    return planted_queries(workspace, workspace.column("corpus", "id"))


def test_only_queries_that_were_not_trained_on_are_taken(tmp_path: Path) -> None:
    found = _queries(_workspace(tmp_path / "ws", ["held"]))
    assert sorted(found) == ["held", "tested"]
    assert found["held"].positives == {"rome": 1}
    assert list(found["held"].negatives.values()) == [NEGATIVES[0].text, NEGATIVES[1].text]
    assert list(found["held"].violations.values()) == ["entity_shift", "relation_break"]
    assert found["tested"].positives == {"moon": 2}


@pytest.mark.parametrize("held_out", [None, []])
def test_without_held_out_queries_only_those_without_a_train_pair_are_taken(
    tmp_path: Path, held_out: list[str] | None
) -> None:
    assert sorted(_queries(_workspace(tmp_path / "ws", held_out))) == ["tested"]


def test_nothing_is_taken_where_nothing_was_generated(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path / "ws", ["held"])
    workspace.remove("negatives")
    assert _queries(workspace) == {}


def _planter(workspace: Workspace, queries: dict[str, PlantedQuery], report: Reporter, depth: int = 10) -> Planter:
    model, settings = resolve("embedded:minilm-l6"), EncodeSettings(precision="fp32")
    corpus = embed_corpus(workspace, model, settings, report)
    return Planter(workspace, model, settings, queries, corpus, workspace.column("corpus", "id"), depth, report)


def test_planted_passages_are_ranked_as_in_one_corpus_with_them(tmp_path: Path, report: Reporter) -> None:
    workspace = _workspace(tmp_path / "ws", ["held"])
    queries = _queries(workspace)
    planter = _planter(workspace, queries, report, depth=3)
    found = measure_planted(planter, queries, "RR@3", seed=0)
    assert list(found) == ["", "entity_shift", "numeric_violation", "relation_break"]

    whole = found[""]
    assert whole.above == {"held": 1, "tested": 0}
    figures = whole.figures
    assert (figures.queries, figures.planted, figures.above_share, figures.above_mean) == (2, 3, 0.5, 0.5)
    assert (whole.without, whole.with_planted) == ({"held": 1, "tested": 1}, {"held": 0.5, "tested": 1})
    assert (figures.without, figures.with_planted) == (1.0, 0.75)

    assert found["entity_shift"].above == {"held": 1}
    assert found["entity_shift"].with_planted == {"held": 0.5}
    assert found["relation_break"].above == {"held": 0}
    assert found["relation_break"].with_planted == {"held": 1}
    assert found["numeric_violation"].above == {"tested": 0}

    # The same by brute force over corpus and planted passages.
    encoder = load_encoder(resolve("embedded:minilm-l6"))
    texts = {p.id: p.full_text for p in PASSAGES} | {n: t for q in queries.values() for n, t in q.negatives.items()}
    scores = (
        encode(encoder, [QUERIES[q] for q in queries], "query") @ encode(encoder, list(texts.values()), "passage").T
    )
    run = {q: dict(zip(texts, own.tolist(), strict=True)) for q, own in zip(queries, scores, strict=True)}
    expected = compute(["RR@3"], {q: query.positives for q, query in queries.items()}, run)
    assert expected.per_query["RR@3"] == whole.with_planted


def test_a_copy_of_the_positive_counts_against_it(tmp_path: Path, report: Reporter) -> None:
    workspace = _workspace(tmp_path / "ws", ["held"])
    query = _queries(workspace)["held"]
    copy = PlantedQuery(query.text, query.positives, {"zz": PASSAGES[0].full_text}, {"zz": "entity_shift"})
    found = _planter(workspace, {"held": copy}, report)({"held": copy}, "RR", seed=0)
    assert (found.above, found.without, found.with_planted) == ({"held": 1}, {"held": 1.0}, {"held": 0.5})


def test_the_best_of_several_positives_counts(tmp_path: Path, report: Reporter) -> None:
    workspace = _workspace(tmp_path / "ws", ["held"])
    query = _queries(workspace)["held"]
    near = PlantedQuery(query.text, {"rome": 1, "bread": 1}, {"n": "Paris is in France."}, {"n": "entity_shift"})
    far = PlantedQuery(query.text, {"bread": 1}, near.negatives, near.violations)
    both = {"near": near, "far": far}
    assert _planter(workspace, both, report)(both, "RR", seed=0).above == {"near": 0, "far": 1}
