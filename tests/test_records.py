"""Rows: ids that every process agrees on, and a round trip through Arrow and Parquet."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from causalneg.records import (
    Analysis,
    Change,
    Edit,
    Facet,
    Failure,
    Judgement,
    Lineage,
    Mined,
    Negative,
    Operation,
    Outcome,
    Passage,
    Qrel,
    Query,
    Record,
    Requirement,
    Violation,
    ViolationType,
    arrow_schema,
    content_id,
    from_table,
    to_table,
)

LINEAGE = Lineage(
    model="m", model_fingerprint="f", prompt_version="1", profile="nq", seed=7, temperature=0.2, max_tokens=9
)
VIOLATION = Violation(type=ViolationType.ENTITY_SHIFT, direction="another ship", why_not_answer="not that flight")
REQUIREMENTS = [
    Requirement(id=1, facet=Facet.ENTITY, content="c", evidence="e", critical=True, violations=[VIOLATION, VIOLATION]),
    Requirement(id=2, facet=Facet.STYLE, content="ç", evidence="", critical=False),
]
NEGATIVE = Negative(
    id="n",
    query_id="q",
    positive_id="p",
    analysis_id="a",
    text="Tōkyō — «naïve» 🚀 e\u0301\u200b",
    requirement_id=1,
    requirement="c",
    violation=ViolationType.NUMERIC_VIOLATION,
    mode="edit",
    origin="edited_positive",
    explanation="",
    lineage=LINEAGE,
)
ROWS: list[Record] = [
    Passage(id="1", title="Ω", text="line\nbreak\t\x00 and 漢字"),
    Query(id="1", text="?"),
    Qrel(query_id="q", passage_id="p", score=-2, split="test"),
    Mined(query_id="q", passage_id="p", dense_score=0.1 + 0.2, positive_score=-1.0, verdict="accepted"),
    Mined(
        query_id="q",
        passage_id="p",
        bm25_rank=1,
        bm25_score=12.5,
        dense_rank=3,
        dense_score=0.3,
        positive_score=0.9,
        verdict="rejected",
        rejected_by="relative_margin",
    ),
    Analysis(
        id="a",
        query_id="q",
        positive_id="p",
        core_need="n",
        how_positive_answers="h",
        answer_boundary="b",
        requirements=REQUIREMENTS,
        lineage=LINEAGE,
    ),
    NEGATIVE,
    NEGATIVE.model_copy(
        update={
            "edit": Edit(operation=Operation.REPLACE, changes=[Change(removed="USS Okinawa", inserted="USS Hornet")]),
            "judgements": [Judgement(requirement_id=1, score=-0.5)],
            "scores": {"likelihood_margin": -0.25, "überlappung": 1e-300},
            "notes": {"form_defects": "no end"},
            "rejected_by": "form",
        }
    ),
    Failure(stage="generate", input_id="i", kind="length", retryable=True, attempts=3, message=""),
    Outcome(
        input_id="i",
        query_id="q",
        positive_id="p",
        status="failed",
        accepted=0,
        rejected=0,
        failure="length",
        requests=1,
        prompt_tokens=2**40,
        cached_tokens=0,
        generated_tokens=0,
    ),
]


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_ids_are_the_same_in_another_process(hash_seed: str) -> None:
    parts = "('q', {'b': 1, 'a': [2.5, None]}, 'Tōkyō')"
    script = f"from causalneg.records import content_id; print(content_id(*{parts}))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == content_id("q", {"a": [2.5, None], "b": 1}, "Tōkyō")


def test_an_id_has_a_fixed_value() -> None:
    # A change here changes the id of every row ever written: finished work would be done again.
    assert content_id("query", "who wrote it?") == "c1e6806360a13b550aff8ad3"


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_ids_tell_different_parts_apart(one: list[str], other: list[str]) -> None:
    assert (content_id(*one) == content_id(*other)) == (one == other)


def test_ids_do_not_confuse_the_border_between_parts() -> None:
    assert content_id("ab", "c") != content_id("a", "bc") != content_id("abc")


def test_ids_take_lone_surrogates() -> None:
    assert content_id("\ud800") != content_id("\ud801")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_a_row_survives_parquet(row: Record, tmp_path: Path) -> None:
    pq.write_table(to_table(type(row), [row, row]), tmp_path / "rows.parquet")
    assert from_table(type(row), pq.read_table(tmp_path / "rows.parquet")) == [row, row]


@pytest.mark.parametrize("record", dict.fromkeys(type(row) for row in ROWS), ids=lambda record: record.__name__)
def test_the_schema_follows_the_fields(record: type[Record]) -> None:
    assert arrow_schema(record).names == list(record.model_fields)
    assert to_table(record, []).schema == arrow_schema(record)
    assert from_table(record, to_table(record, [])) == []


def test_the_schema_nests() -> None:
    schema = arrow_schema(Negative)
    assert schema.field("scores").type == pa.map_(pa.string(), pa.float64())
    assert schema.field("violation").type == pa.string()
    assert schema.field("edit").type == pa.struct(
        [
            ("operation", pa.string()),
            ("changes", pa.list_(pa.struct([("removed", pa.string()), ("inserted", pa.string())]))),
        ]
    )
    requirements = arrow_schema(Analysis).field("requirements").type
    assert pa.types.is_list(requirements)
    assert requirements.value_type.field("violations").type.value_type.names == list(Violation.model_fields)


def test_a_type_that_rows_cannot_have_is_refused() -> None:
    class Odd(Record):
        value: complex

    with pytest.raises(TypeError, match="complex"):
        arrow_schema(Odd)


@given(st.text(), st.text())
def test_any_text_survives(title: str, text: str) -> None:
    passage = Passage(id="p", title=title, text=text)
    assert from_table(Passage, to_table(Passage, [passage])) == [passage]


def test_a_lone_surrogate_is_refused_not_written() -> None:
    with pytest.raises(UnicodeEncodeError):
        to_table(Passage, [Passage(id="p", text="\ud800")])


def test_rows_are_immutable_and_closed() -> None:
    with pytest.raises(ValidationError):
        Query(id="q", text="t").text = "u"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Query.model_validate({"id": "q", "text": "t", "lang": "en"})


@pytest.mark.parametrize(
    ("title", "text", "full"),
    [
        ("", "It flew.", "It flew."),
        ("Apollo 8", "It flew.", "Apollo 8. It flew."),
        ("Apollo 8", "Apollo 8 flew.", "Apollo 8 flew."),
    ],
)
def test_full_text_joins_title_and_text_once(title: str, text: str, full: str) -> None:
    assert Passage(id="p", title=title, text=text).full_text == full
    assert NEGATIVE.model_copy(update={"title": title, "text": text}).full_text == full
