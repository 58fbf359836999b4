"""The typed rows that stages hand to each other, their Arrow schemas and their content-addressed ids."""

import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field


def content_id(*parts: object) -> str:
    """Return the id of a row: a hash of the values that determine it, the same in every process."""
    encoded = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=12).hexdigest()


class Record(BaseModel):
    """A row: immutable, with no fields beyond the declared ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Row = TypeVar("Row", bound=Record)


def full_text(title: str, text: str) -> str:
    """Join title and text: what is searched, embedded and shown to the LLM. Either may be empty."""
    if not title or text.startswith(title):
        return text
    return f"{title}. {text}" if text else title


def metadata_text(values: Mapping[str, Any]) -> str:
    """Return metadata as rows hold it: a JSON object as text, the same for the same values; "" when it is empty.

    Raises:
        ValueError: a value is NaN or infinite, which JSON has not.
        RecursionError: it is nested too deeply to be written.
    """
    if not values:
        return ""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)


class Passage(Record):
    """A passage of the corpus."""

    id: str
    title: str = ""
    text: str
    metadata: str = Field("", description="a JSON object, as `metadata_text` writes it; nothing is computed from it")

    @property
    def full_text(self) -> str:
        """Title and text as one string."""
        return full_text(self.title, self.text)


class Query(Record):
    """A query."""

    id: str
    text: str


class Qrel(Record):
    """A relevance judgement; `score` above zero makes the passage a positive of the query."""

    query_id: str
    passage_id: str
    score: int = 1
    split: str = "train"


class Rejected(Record):
    """A row of a data set that the import left out, and why; `line` counts from 1."""

    rows: str = Field(description="what it should have been: passages, queries, judgements or pairs")
    kind: str
    reason: str
    file: str
    line: int
    excerpt: str


class Source(StrEnum):
    """Where a negative comes from. The loss splits on this and never on a position."""

    MINED = "mined"
    GENERATED = "generated"


class Relation(StrEnum):
    """What the relevance judgements say about a candidate."""

    UNJUDGED = "unjudged"
    POSITIVE = "positive"
    NEGATIVE = "negative"  # judged with a score of 0 or less, or given as a negative by the user


class Candidate(Record):
    """A passage that a search found for a query, or that is judged for it, with its scores; ranks start at 1."""

    query_id: str
    passage_id: str
    relation: Relation = Relation.UNJUDGED
    bm25_rank: int | None = None
    bm25_score: float | None = None
    dense_rank: int | None = None
    dense_score: float = Field(description="cosine of query and passage")
    cross_score: float | None = Field(None, description="score of the cross-encoder, if one was asked")

    @property
    def score(self) -> float:
        """The score that the filters look at: the cross-encoder's where there is one, otherwise the cosine."""
        return self.dense_score if self.cross_score is None else self.cross_score

    @property
    def was_found(self) -> bool:
        """Whether a search found the passage; one that is judged may not have been."""
        return self.bm25_rank is not None or self.dense_rank is not None


class Mined(Candidate):
    """A candidate with the verdict of the filters."""

    positive_score: float = Field(description="lowest `score` of the query's positives")
    verdict: Literal["accepted", "rejected"]
    rejected_by: str | None = None


class Answering(StrEnum):
    """Whether a candidate answers the query."""

    ANSWERS = "answers"
    PARTLY = "partly"
    NO = "no"


class Relabelled(Record):
    """A mined candidate that the LLM judged; `accepted` ones stay negatives, `rejected` ones are false negatives.

    Attributes:
        score: log-odds that it answers the query, if only in part, in nats.
        reason: what in it answers; empty where it does not.
    """

    query_id: str
    passage_id: str
    answering: Answering
    score: float
    reason: str = ""
    verdict: Literal["accepted", "rejected"] = "accepted"
    rejected_by: str | None = None


class FalseNegative(Record):
    """A mined passage that is no negative of its query; `whole` where it answers it as a whole."""

    query_id: str
    passage_id: str
    whole: bool


class Facet(StrEnum):
    """What kind of thing an information requirement asks for."""

    INFORMATION_NEED = "information_need"
    ENTITY = "entity"
    ATTRIBUTE = "attribute"
    CONSTRAINT = "constraint"
    RELATION = "relation"
    REASONING = "reasoning"
    STYLE = "style"
    OTHER = "other"


class ViolationType(StrEnum):
    """How a requirement is broken. `negation` is opt-in only: a negated answer still answers."""

    ENTITY_SHIFT = "entity_shift"
    INTENT_DRIFT = "intent_drift"
    TEMPORAL_VIOLATION = "temporal_violation"
    NUMERIC_VIOLATION = "numeric_violation"
    SPATIAL_VIOLATION = "spatial_violation"
    CAUSAL_VIOLATION = "causal_violation"
    ATTRIBUTE_SHIFT = "attribute_shift"
    RELATION_BREAK = "relation_break"
    UPSTREAM_DOWNSTREAM = "upstream_downstream"
    NEGATION = "negation"


class Violation(Record):
    """A way to break a critical requirement."""

    type: ViolationType
    direction: str
    why_not_answer: str


class Requirement(Record):
    """One thing a passage must meet to be relevant. `evidence` stands verbatim in the positive."""

    id: int
    facet: Facet
    content: str
    evidence: str
    critical: bool
    violations: list[Violation] = []


class Lineage(Record):
    """What made a generated row: enough to make it again.

    Attributes:
        model_fingerprint: hash of the model's files, or what an endpoint tells of its model's revision.
        prompt_version: hash of the prompts' texts.
        profile: the data set's profile, by name and hash.
    """

    model: str
    model_fingerprint: str
    prompt_version: str
    profile: str
    seed: int
    temperature: float
    max_tokens: int


class Analysis(Record):
    """A positive taken apart into information requirements.

    Attributes:
        self_contained: whether the query alone says what it is about; where not, another subject answers it, too.
        answering: ids of the mined candidates that answer the query after all.
    """

    id: str
    query_id: str
    positive_id: str
    core_need: str
    how_positive_answers: str
    answer_boundary: str
    requirements: list[Requirement]
    lineage: Lineage
    self_contained: bool = True
    answering: list[str] = []


class Change(Record):
    """A stretch of the positive and what took its place, wherever it stood; nothing where it was dropped."""

    removed: str
    inserted: str = ""


class Operation(StrEnum):
    """What an edit does to the positive."""

    REPLACE = "replace"
    DROP = "drop"
    GRAFT = "graft"  # the evidence gives way to a sentence of another passage about the same thing


class Edit(Record):
    """The exact difference to the positive in `edit` mode."""

    operation: Operation
    changes: list[Change]


class Judgement(Record):
    """How far a negative meets one requirement of its analysis.

    Attributes:
        score: above 0 where it is met: the log-odds of «yes», or, by likelihood, how much more likely the requirement
            is under the negative than half way between the positive and a passage about something else, in nats.
        moot: whether it can't be held to the negative at all, which has nothing of the kind.
    """

    requirement_id: int
    score: float
    moot: bool = False


class Negative(Record):
    """A generated negative with its lineage, every gate's score and the verdict."""

    id: str
    query_id: str
    positive_id: str
    analysis_id: str
    title: str = ""
    text: str
    requirement_id: int
    requirement: str
    violation: ViolationType
    mode: Literal["edit", "rewrite"]
    origin: Literal["edited_positive", "rewritten_candidate", "from_scratch"]
    explanation: str
    edit: Edit | None = None
    lineage: Lineage
    judgements: list[Judgement] = []
    scores: dict[str, float] = {}
    notes: dict[str, str] = Field({}, description="what some scores are about, in words, by the score's name")
    verdict: Literal["accepted", "rejected"] = "rejected"
    rejected_by: str | None = Field(None, description="first gate that it did not pass")
    reason: str | None = Field(None, description="why that gate rejected it, in words")

    @property
    def full_text(self) -> str:
        """Title and text as one string, as for a passage."""
        return full_text(self.title, self.text)


class Failure(Record):
    """An input row that gave no result, or only a part of it, and why."""

    stage: str
    input_id: str
    kind: str
    retryable: bool
    attempts: int
    message: str
    part: str = Field("", description="what of the row was lost: a negative's id, or what was to be written; else all")


class Outcome(Record):
    """What became of one input row of generation; its presence marks the row as done."""

    input_id: str
    query_id: str
    positive_id: str
    status: Literal["accepted", "rejected", "failed"]
    failure: str | None = Field(None, description="kind of the failure, if it is one")
    accepted: int
    rejected: int
    requests: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int


_SCALARS: dict[type, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _arrow_type(annotation: Any) -> pa.DataType:  # noqa: ANN401 - annotations have no common type
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return _arrow_type(inner)
    if origin is Literal:
        return pa.string()
    if origin is list:
        return pa.list_(_arrow_type(arguments[0]))
    if origin is dict:
        return pa.map_(_arrow_type(arguments[0]), _arrow_type(arguments[1]))
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if issubclass(annotation, StrEnum):
        return pa.string()
    if issubclass(annotation, Record):
        return pa.struct(list(arrow_schema(annotation)))
    raise TypeError(f"no Arrow type for {annotation}")


@cache
def arrow_schema(record: type[Record]) -> pa.Schema:
    """Derive the Arrow schema of a record type from its fields.

    Raises:
        TypeError: a field has a type that rows cannot have.
    """
    return pa.schema([(name, _arrow_type(field.annotation)) for name, field in record.model_fields.items()])


def to_table(record: type[Row], rows: Iterable[Row]) -> pa.Table:
    """Turn rows into an Arrow table with the record's schema."""
    return pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], schema=arrow_schema(record))


def from_table(record: type[Row], table: pa.Table | pa.RecordBatch) -> list[Row]:
    """Turn an Arrow table back into rows."""
    return [record.model_validate(row) for row in table.to_pylist(maps_as_pydicts="strict")]
