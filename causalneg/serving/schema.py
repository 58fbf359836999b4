"""What is asked of the server and what it answers: the shapes of the HTTP interface, shared with the clients."""

import math
import unicodedata
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from causalneg.filters import Filter

EmbeddingKind = Literal["query", "passage"]
Cut = Literal["right", "left"]  # the side at which a text that is too long loses tokens

_BREAKING = ("Cc", "Zl", "Zp")  # categories of control characters and line breaks


class Asked(BaseModel):
    """A request's body: exact types, and no fields beyond the declared ones."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SearchRequest(Asked):
    """What to search for: `query` or `queries`, one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [one], "properties": {one: {"type": kind}, other: {"type": "null"}}}
                for one, kind, other in (("query", "string", "queries"), ("queries", "array", "query"))
            ]
        }
    )

    query: str | None = Field(None, description="one query")
    queries: list[str] | None = Field(None, description="several queries, answered in this order")
    limit: int = Field(10, ge=1, description="hits per query; the server's largest when that is below 10")
    offset: int = Field(0, ge=0, description="hits left out before the first")
    filter: Filter | None = Field(None, description="conditions on the passages' metadata")
    score_threshold: float | None = Field(None, allow_inf_nan=False, description="lowest score of a hit")
    with_payload: bool = Field(True, description="send title, text and metadata of the hits")
    hybrid: bool = Field(False, description="fuse with BM25 by reciprocal rank")
    rerank: bool = Field(False, description="score the best hits anew with the server's cross-encoder")
    timeout_ms: int | None = Field(None, ge=1, description="time that the answer may take; the server's when unset")

    @model_validator(mode="after")
    def _one_of_two(self) -> "SearchRequest":
        if (self.query is None) == (self.queries is None):
            raise ValueError("give either query or queries")
        return self

    @property
    def texts(self) -> list[str]:
        """The queries as a list, be it one or several."""
        return [self.query] if self.query is not None else list(self.queries or [])


class Payload(BaseModel):
    """The passage of a hit."""

    title: str
    text: str
    metadata: dict[str, Any] = {}


class SearchHit(BaseModel):
    """A passage found for a query.

    `score` is the cosine of their vectors; with `hybrid` the fused one, with `rerank` the cross-encoder's.
    """

    id: str
    score: float
    payload: Payload | None = None


class Timings(BaseModel):
    """Where the time of a request went, in milliseconds; `total` is the whole of it inside the server."""

    queue: float = 0
    tokenise: float = 0
    encode: float = 0
    search: float = 0
    rerank: float = 0
    total: float = 0


class SearchResponse(BaseModel):
    """One list of hits per query, best first; a single query gives a list of one list."""

    index_version: str
    change: int = Field(description="number of the last change that the answer knows")
    results: list[list[SearchHit]]
    truncated: list[bool] = Field(description="per query, whether its end was cut for the encoder")
    timings: Timings


class EmbeddingsRequest(Asked):
    """Texts to encode, in the shape of OpenAI's `/v1/embeddings`."""

    input: str | list[str] = Field(description="a text, or several")
    model: str | None = Field(None, description="ignored but for its type: one model is served")
    encoding_format: Literal["float", "base64"] | None = Field("float", description="float when unset or null")
    dimensions: int | None = Field(None, ge=1, description="cut the vectors to so many, of length 1 again")
    user: str | None = Field(None, description="ignored")
    input_type: EmbeddingKind | None = Field(None, description="use the model's prompt for these; none when unset")
    truncate: bool | None = Field(False, description="cut inputs that are too long; otherwise they are refused")

    @field_validator("input", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if isinstance(value, list) and value and all(_may_be_tokens(item) for item in value):
            raise ValueError(
                "send texts and no token ids: nothing tells which tokenizer they are of, and those of another one "
                "give wrong vectors (LangChain's OpenAIEmbeddings sends texts with check_embedding_ctx_length=False)"
            )
        return value


def _may_be_tokens(item: object) -> bool:
    return isinstance(item, list) or (isinstance(item, int) and not isinstance(item, bool))


class Embedding(BaseModel):
    """One vector; as base64 it is little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that were encoded."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the input."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage


class Model(BaseModel):
    """The model that is served, in the shape of OpenAI's `/v1/models`."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when the server started, seconds from 1970")
    owned_by: str = "causalneg"


class ModelList(BaseModel):
    """The one model that is served."""

    object: Literal["list"] = "list"
    data: list[Model]


class EmbedRequest(Asked):
    """Texts to encode, in the shape of text-embeddings-inference's `/embed`."""

    inputs: str | list[str]
    normalize: bool = Field(True, description="give vectors of length 1")
    truncate: bool | None = Field(False, description="cut inputs that are too long; otherwise they are refused")
    truncation_direction: Literal["Right", "Left", "right", "left"] = "Right"
    prompt_name: str | None = Field(None, description="one of the model's prompts, as `query`")
    dimensions: int | None = Field(None, ge=1, description="cut the vectors to so many")


class PassageBody(Asked):
    """A passage to add or to put in place of the one with its id."""

    id: str = Field(min_length=1, max_length=1024, description="without line breaks and control characters")
    title: str = ""
    text: str = Field(min_length=1, description="more than white space")
    metadata: dict[str, Any] = {}

    @field_validator("id")
    @classmethod
    def _is_one_line(cls, value: str) -> str:
        # They would break the lines of what names passages one by one: logs, tables and TREC runs.
        if any(unicodedata.category(sign) in _BREAKING for sign in value):
            raise ValueError("an id may hold no line break and no other control character")
        return value

    @field_validator("text")
    @classmethod
    def _is_not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the text is blank; give it words, or delete the passage")
        return value

    @field_validator("metadata")
    @classmethod
    def _is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        # NaN and infinity are read, but they are no JSON and could not be sent back.
        if not _all_finite(value):
            raise ValueError("numbers must be finite")
        return value


def _all_finite(value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


class UpsertRequest(Asked):
    """Passages to add or to replace."""

    passages: list[PassageBody] = Field(min_length=1)


class DeleteRequest(Asked):
    """Ids of passages to take away; those that are not there count as taken away."""

    ids: list[str] = Field(min_length=1)


class ChangeResponse(BaseModel):
    """What was changed; every search that starts after this answer knows it."""

    changed: int
    change: int = Field(description="number of the last change")
    index_version: str
    truncated: list[str] = Field([], description="ids of passages whose end was cut for the encoder")


class PassageResponse(BaseModel):
    """A passage by its id."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any] = {}


class IndexVersion(BaseModel):
    """An index version that is there."""

    version: str
    kind: str
    rows: int
    dimension: int
    shards: int
    megabytes: float
    model: str
    model_fingerprint: str
    recall: float | None = Field(None, description="measured share of the 10 nearest that it finds")
    lexical: bool
    change: int = Field(description="number of the last change that it holds")
    created: str


class IndexList(BaseModel):
    """The versions, newest first, which one answers, and which did before."""

    active: str
    previous: str | None
    change: int = Field(description="number of the last change that was made")
    replicas: dict[str, int] = Field({}, description="replicas by the version that they answer from")
    problem: str | None = Field(
        None, description="what does not work: changes that cannot be made or followed, a merge, a new version"
    )
    versions: list[IndexVersion]


class ActivateRequest(Asked):
    """Which of the versions is to answer."""

    version: str = Field(min_length=1, max_length=100)


class SwapResponse(BaseModel):
    """The version that answers now; every replica had opened it and passed its canary queries."""

    active: str
    previous: str | None
    replicas: int
    seconds: float


class MergeResponse(BaseModel):
    """A merge that has begun; the new version is activated when it is there."""

    state: Literal["started", "running"]
    change: int = Field(description="number of the last change that was made")


class Info(BaseModel):
    """What is served; the first fields are named as in text-embeddings-inference."""

    model_id: str
    model_sha: str
    model_dtype: str
    backend: str
    max_input_length: int
    max_client_batch_size: int
    max_batch_tokens: int
    prompts: dict[str, str]
    dimension: int
    index_version: str
    index_kind: str
    rows: int
    change: int
    hybrid: bool
    rerank: bool
    version: str


class Health(BaseModel):
    """Sent as soon as the process answers; `/ready` says whether queries can be answered."""

    status: str = "ok"


class Ready(Health):
    """Sent while queries can be answered."""

    problem: str | None = Field(None, description="what does not work beside that: changes, a merge, a new version")


class ErrorBody(BaseModel):
    """What is wrong: the HTTP status, a sentence, and a name that programs can test for."""

    code: int
    message: str
    type: str


class OpenAIError(BaseModel):
    """An error as OpenAI's clients look for it."""

    message: str
    type: str
    param: str | None = Field(description="the field that is wrong, where it is one")
    code: str


class OpenAIErrorBody(ErrorBody):
    """What is wrong, and the same once more in OpenAI's form."""

    error: OpenAIError
