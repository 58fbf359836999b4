"""The embedded sample keeps the promises that the demo and the tests of generation rest on."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import causalneg.sources
from causalneg.records import Facet, Requirement, ViolationType

FOLDER = Path(causalneg.sources.__file__).parent / "sample"


@cache
def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def passages() -> dict[str, dict[str, Any]]:
    return {row["_id"]: row for row in read("corpus.jsonl")}


def queries() -> dict[str, dict[str, Any]]:
    return {row["_id"]: row for row in read("queries.jsonl")}


def positives(split: str) -> dict[str, str]:
    header, *lines = (FOLDER / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    judged = [line.split("\t") for line in lines]
    assert {score for _, _, score in judged} == {"1"}
    pairs = {query: passage for query, passage, _ in judged}
    assert len(pairs) == len(judged)
    return pairs


def test_passages_are_enough_and_of_even_length() -> None:
    assert len(passages()) == len(read("corpus.jsonl")) >= 240
    lengths = {row["_id"]: len(row["text"].split()) for row in read("corpus.jsonl")}
    assert {name: n for name, n in lengths.items() if not 50 <= n <= 120} == {}
    assert len({row["text"] for row in read("corpus.jsonl")}) == len(passages())


def test_every_query_has_one_positive_in_one_split() -> None:
    train, test = positives("train"), positives("test")
    assert len(queries()) == len(read("queries.jsonl")) >= 120
    assert not train.keys() & test.keys()
    assert train.keys() | test.keys() == queries().keys()
    assert not set(train.values()) & set(test.values())
    assert set(train.values()) | set(test.values()) <= passages().keys()
    for split, pairs in (("train", train), ("test", test)):
        for query, positive in pairs.items():
            metadata = queries()[query]["metadata"]
            assert (metadata["split"], metadata["positive"]) == (split, positive)


def test_answers_stand_verbatim_in_the_positive_and_not_in_the_query() -> None:
    for query in read("queries.jsonl"):
        answer = query["metadata"]["answer"]
        assert answer
        assert answer in passages()[query["metadata"]["positive"]]["text"], query["_id"]
        assert answer not in query["text"], query["_id"]


def test_analyses_hold_evidence_from_the_positive() -> None:
    analyses = read("analyses.jsonl")
    assert len(analyses) == len({a["query_id"] for a in analyses}) == 12
    for analysis in analyses:
        assert positives("train")[analysis["query_id"]] == analysis["positive_id"]
        positive = passages()[analysis["positive_id"]]
        requirements = [Requirement.model_validate(row) for row in analysis["requirements"]]
        assert len({r.id for r in requirements}) == len(requirements) >= 3
        for requirement in requirements:
            assert requirement.facet in Facet
            assert requirement.evidence
            assert requirement.evidence in positive["text"], (analysis["query_id"], requirement.id)
            assert bool(requirement.violations) == requirement.critical


def test_counterfactuals_break_a_critical_requirement_and_hold_no_answer() -> None:
    for analysis in read("analyses.jsonl"):
        critical = {r["id"] for r in analysis["requirements"] if r["critical"]}
        answer = queries()[analysis["query_id"]]["metadata"]["answer"]
        counterfactuals = analysis["counterfactuals"]
        assert len(counterfactuals) == 3
        assert len({c["text"] for c in counterfactuals}) == 3
        for counterfactual in counterfactuals:
            assert counterfactual["requirement"] in critical
            assert counterfactual["violation"] in set(ViolationType)
            assert counterfactual["why"]
            assert answer.casefold() not in counterfactual["text"].casefold(), analysis["query_id"]
            assert counterfactual["text"] != passages()[analysis["positive_id"]]["text"]
