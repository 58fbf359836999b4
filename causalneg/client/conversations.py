"""What is said to the server and what its answers mean, without the sending: shared by both clients.

A conversation is a generator. It yields what is to be done next, a `Send` or a `Pause`; for the first it is given the
`Reply`, or the exception in its place; and it returns what was asked for, or raises a `CausalNegError`.
"""

import base64
import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypedDict, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from causalneg.client.arguments import check_names
from causalneg.client.errors import (
    BadAnswerError,
    CausalNegError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    TimedOutError,
    TooLargeError,
    UnreachableError,
    error_of,
)
from causalneg.errors import UserError
from causalneg.filters import Filter
from causalneg.retries import backoff, retry_after
from causalneg.serving.schema import (
    ActivateRequest,
    Asked,
    ChangeResponse,
    DeleteRequest,
    EmbeddingKind,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ErrorBody,
    Health,
    IndexList,
    Info,
    MergeResponse,
    PassageBody,
    PassageResponse,
    SearchRequest,
    SearchResponse,
    SwapResponse,
    UpsertRequest,
)

if TYPE_CHECKING:
    import numpy as np

    from causalneg.records import Passage

KEY_VARIABLE = "CAUSALNEG_API_KEY"

_FIRST_BACKOFF = 0.2  # seconds
_LONGEST_BACKOFF = 10.0
_LEAST_SECONDS = 0.05  # for a request
_PASSING = (429, 503)  # nothing was done, and it may be later
_BROKEN = (500, 502)  # a proxy lost the replica, Ray's says 500: it may have been done
_MOST_SAID = 500  # characters of the server's words in a message


class SearchOptions(TypedDict, total=False):
    """How to search; what is left out or None is as the server has it.

    Attributes:
        limit: hits per query, 10 unless set.
        offset: hits left out before the first.
        filter: conditions on the passages' metadata, in the shape of qdrant's filters.
        score_threshold: lowest score of a hit.
        with_payload: whether hits come with title, text and metadata; they do unless this is False.
        hybrid: fuse with BM25 by reciprocal rank.
        rerank: score the best hits anew with the server's cross-encoder.
        timeout_ms: milliseconds that the server may take.
    """

    limit: int | None
    offset: int | None
    filter: Filter | dict[str, Any] | None
    score_threshold: float | None
    with_payload: bool | None
    hybrid: bool | None
    rerank: bool | None
    timeout_ms: int | None


@dataclass(frozen=True)
class Send:
    """A request to send, and the seconds within which its answer is of use."""

    method: str
    url: str
    body: bytes | None
    seconds: float


@dataclass(frozen=True)
class Pause:
    """So many seconds to let pass."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """What the server answered; `headers` knows no case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Outcome = Reply | httpx.RequestError | TimeoutError | None
_T = TypeVar("_T")
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer", bound=BaseModel)
Conversation = Generator[Send | Pause, Outcome, _T]
AnyPassage: TypeAlias = "PassageBody | Passage | Mapping[str, Any]"


class Conversations:
    """The conversations with one server.

    A pickle holds the key that was given; one of the environment is read where the pickle is loaded.

    Args:
        url: the server's address, as `http://127.0.0.1:8000`.
        api_key: None takes that of the environment variable CAUSALNEG_API_KEY, if there is one.
        timeout: seconds that a request may take in all, repetitions and pauses included.
        retries: how often a request is repeated at most.

    Raises:
        UserError: the address or the key is none.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float, retries: int) -> None:
        self.url = _checked_url(url)
        self._given_key = api_key
        self._key = _checked_key(os.environ.get(KEY_VARIABLE) if api_key is None else api_key)
        self._timeout = timeout
        self._retries = retries
        self._batch: int | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[str, str | None, float, int]]:
        return type(self), (self.url, self._given_key, self._timeout, self._retries)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        credentials = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return {"Content-Type": "application/json", **credentials}

    def search(self, query: str | list[str], options: SearchOptions) -> Conversation[SearchResponse]:
        """Search for a query or for several at once."""
        try:
            check_names("A search", options, SearchOptions.__annotations__)
        except TypeError as error:
            raise InvalidRequestError(str(error), None, "invalid") from None
        asked = {"query": query} if isinstance(query, str) else {"queries": query}
        answer = yield from self._post("/v1/search", SearchResponse, _body(SearchRequest, **asked, **options))
        expected = 1 if isinstance(query, str) else len(query)
        if len(answer.results) != expected:
            message = f"{self.url} answered {len(answer.results)} queries where {expected} were asked."
            raise BadAnswerError(message, None, "bad_answer")
        return answer

    def embed(
        self, texts: str | Sequence[str], kind: EmbeddingKind | None, dimensions: int | None
    ) -> Conversation["np.ndarray"]:
        """Encode texts, as many requests as it takes: float32 [texts, dimensions], or [dimensions] for a string."""
        try:
            import numpy as np
        except ModuleNotFoundError as error:  # nothing else in a client needs it
            raise ImportError("Vectors are arrays of NumPy; install it with `pip install numpy`.") from error

        def part(inputs: list[str]) -> Conversation["np.ndarray"]:
            body = _body(
                EmbeddingsRequest, input=inputs, encoding_format="base64", dimensions=dimensions, input_type=kind
            )
            answer = yield from self._post("/v1/embeddings", EmbeddingsResponse, body)
            try:
                return _vectors(answer, len(inputs))
            except ValueError as error:
                message = f"{self.url} gave no usable vectors: {error}."
                raise BadAnswerError(message, None, "bad_answer") from None

        vectors = np.concatenate((yield from self._in_parts(_listed(texts), part)))
        return vectors[0] if isinstance(texts, str) else vectors

    def upsert(self, passages: "AnyPassage | Iterable[AnyPassage]") -> Conversation[ChangeResponse]:
        """Add passages or put them in place of those with their ids, as many requests as it takes."""

        def part(bodies: list[PassageBody]) -> Conversation[ChangeResponse]:
            return self._post("/v1/passages", ChangeResponse, _body(UpsertRequest, passages=bodies))

        bodies = [_passage(passage) for passage in _listed(passages)]
        return _summed((yield from self._in_parts(bodies, part)))

    def delete(self, ids: str | Iterable[str]) -> Conversation[ChangeResponse]:
        """Take passages away, as many requests as it takes."""

        def part(some: list[str]) -> Conversation[ChangeResponse]:
            return self._post("/v1/passages/delete", ChangeResponse, _body(DeleteRequest, ids=some))

        return _summed((yield from self._in_parts(_listed(ids), part)))

    def get(self, passage_id: str) -> Conversation[PassageResponse | None]:
        """Fetch a passage; None if there is none with the id."""
        # Dots too: an id of only dots would otherwise mean a folder further up.
        place = quote(passage_id, safe="").replace(".", "%2E")
        try:
            return (yield from self._get(f"/v1/passages/{place}", PassageResponse))
        except NotFoundError as error:
            if error.type != "no_such_passage":  # there is no such route: it is another server
                raise
            return None

    def versions(self) -> Conversation[IndexList]:
        """List the index versions."""
        return self._get("/v1/index", IndexList)

    def activate(self, version: str) -> Conversation[SwapResponse]:
        """Let a version answer."""
        body = _body(ActivateRequest, version=version)
        return self._post("/v1/index/activate", SwapResponse, body, repeatable=False)

    def roll_back(self) -> Conversation[SwapResponse]:
        """Let the version answer that did before."""
        return self._post("/v1/index/rollback", SwapResponse, repeatable=False)

    def merge(self) -> Conversation[MergeResponse]:
        """Begin to merge the changes into a new version."""
        return self._post("/v1/index/merge", MergeResponse)

    def info(self) -> Conversation[Info]:
        """Ask what is served."""
        return self._get("/info", Info)

    def health(self) -> Conversation[Health]:
        """Ask whether the process answers."""
        return self._get("/health", Health)

    def ready(self) -> Conversation[bool]:
        """Ask once whether queries can be answered now."""
        try:
            yield from self._ask("GET", "/ready", Health, None, retries=0)
        except (NotReadyError, TimedOutError, UnreachableError):
            return False
        return True

    def _get(self, path: str, kind: type[_Answer]) -> Conversation[_Answer]:
        return self._ask("GET", path, kind, None, self._retries)

    def _post(
        self, path: str, kind: type[_Answer], body: bytes | None = None, repeatable: bool = True
    ) -> Conversation[_Answer]:
        return self._ask("POST", path, kind, body, self._retries, repeatable)

    def _ask(
        self, method: str, path: str, kind: type[_Answer], body: bytes | None, retries: int, repeatable: bool = True
    ) -> Conversation[_Answer]:
        """Ask until there is an answer or an error that will not pass, the repetitions or the time are used up.

        `repeatable`: whether asking twice does no harm where the first answer got lost.
        """
        ends = time.monotonic() + self._timeout
        failures = 0
        while True:
            left = max(_LEAST_SECONDS, ends - time.monotonic())  # a pause may last a little longer than it was to
            outcome = yield Send(method, self.url + path, body, left)
            if isinstance(outcome, Reply) and 200 <= outcome.status < 300:
                return self._read(outcome, path, kind)
            failures += 1
            wait = max(backoff(failures, _FIRST_BACKOFF, _LONGEST_BACKOFF), _wanted_wait(outcome))
            passes = _passes(outcome, repeatable)
            if not passes or failures > retries or time.monotonic() + wait >= ends:
                raise self._problem(outcome, path, failures)
            yield Pause(wait)

    def _in_parts(self, items: list[_Item], ask: Callable[[list[_Item]], Conversation[_T]]) -> Conversation[list[_T]]:
        """Ask about items in batches of what the server takes."""
        if self._batch is None and len(items) > 1:
            self._batch = max(1, (yield from self.info()).max_client_batch_size)
        size = self._batch or 1
        answers = []
        for start in range(0, max(len(items), 1), size):  # of no items the server or the schema says that it is none
            answers += yield from _halving(items[start : start + size], ask)
        return answers

    def _read(self, reply: Reply, path: str, kind: type[_Answer]) -> _Answer:
        try:
            return kind.model_validate_json(reply.body)
        except ValidationError as error:
            problem = self._quoted(_first(error))
        # Not raised in the handler: the other error would stay with this one, and it quotes the body.
        raise BadAnswerError(f"{self.url}{path} gave no usable answer: {problem}.", reply.status, "bad_answer")

    def _problem(self, outcome: Outcome, path: str, attempts: int) -> CausalNegError:
        """Return the error that an outcome means."""
        address = self.url + path
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        if isinstance(outcome, TimeoutError | httpx.TimeoutException):
            return TimedOutError(f"{address} gave no answer within {self._timeout:g} s{tries}.", None, "timeout")
        if isinstance(outcome, httpx.DecodingError):
            return BadAnswerError(f"{address} gave an answer that can't be unpacked.", None, "bad_answer")
        if not isinstance(outcome, Reply):
            reason = self._quoted(outcome) or type(outcome).__name__
            return UnreachableError(f"{address} can't be reached{tries}: {reason}", None, "unreachable")
        said = self._said(outcome)
        return error_of(outcome.status)(
            f"{address} answered {outcome.status}{tries}: {self._quoted(said.message)}", outcome.status, said.type
        )

    def _said(self, reply: Reply) -> ErrorBody:
        """Return what an answer says of its error; proxies and other servers have other shapes for it."""
        if 300 <= reply.status < 400:
            there = reply.headers.get("location", "another address")
            text = f"it has moved to {there}, and redirects are not followed; give the new address"
            return ErrorBody(code=reply.status, message=text, type="moved")
        try:
            return ErrorBody.model_validate_json(reply.body)
        except ValidationError:
            text = reply.body.decode("utf-8", "replace").strip()
            return ErrorBody(code=reply.status, message=text or "it gave no reason", type="error")

    def _quoted(self, words: object) -> str:
        """Return words that are not ours in one short line, without the key should they repeat it."""
        line = " ".join(str(words).split())
        return (line.replace(self._key, "***") if self._key else line)[:_MOST_SAID]


def _halving(items: list[_Item], ask: Callable[[list[_Item]], Conversation[_T]]) -> Conversation[list[_T]]:
    """Ask about items at once, or about halves of them where they are too large together."""
    try:
        return [(yield from ask(items))]
    except TooLargeError:
        if len(items) < 2:
            raise
    middle = len(items) // 2
    first = yield from _halving(items[:middle], ask)
    return first + (yield from _halving(items[middle:], ask))


def _wanted_wait(outcome: Outcome) -> float:
    """Return the seconds that the server asks to wait; 0 where it does not."""
    return retry_after(outcome.headers.get("retry-after"), datetime.now(UTC)) if isinstance(outcome, Reply) else 0.0


def _passes(outcome: Outcome, repeatable: bool) -> bool:
    """Tell whether the same request may be answered later."""
    if isinstance(outcome, Reply):
        return outcome.status in _PASSING or (repeatable and outcome.status in _BROKEN)
    if isinstance(outcome, httpx.ConnectError):
        return True  # the server saw nothing of it
    return repeatable and isinstance(outcome, httpx.TransportError) and not isinstance(outcome, httpx.TimeoutException)


def _body(kind: type[Asked], **fields: Any) -> bytes:
    """Return a request's body with the fields that are not None, checked as the server checks them."""
    try:
        asked = kind(**{name: value for name, value in fields.items() if value is not None})
        content = asked.model_dump(exclude_unset=True, by_alias=True)
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except ValidationError as error:
        raise InvalidRequestError(f"{_first(error)}.", None, "invalid") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"It can't be written as JSON: {error}.", None, "invalid") from None


def _first(error: ValidationError) -> str:
    """Return where the first problem is and what it is, without the value."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if where else problem["msg"]


def _listed(items: Any) -> list[Any]:  # noqa: ANN401 - one or several
    """Return items as a list, one by itself too."""
    return [items] if isinstance(items, str | Mapping | BaseModel) else list(items)


def _passage(passage: Any) -> PassageBody:  # noqa: ANN401 - one of the forms of a passage
    """Return a passage as it is sent; a row of the workspace has its metadata as JSON."""
    if isinstance(passage, PassageBody):
        return passage
    fields = dict(passage.model_dump() if isinstance(passage, BaseModel) else passage)
    try:
        if isinstance(metadata := fields.get("metadata"), str):
            fields["metadata"] = json.loads(metadata) if metadata else {}
        return PassageBody(**fields)
    except ValidationError as error:
        message = _first(error)
    except ValueError as error:
        message = f"metadata: {error}"
    raise InvalidRequestError(f"The passage {fields.get('id')!r} can't be sent: {message}.", None, "invalid")


def _summed(answers: list[ChangeResponse]) -> ChangeResponse:
    """Return what several changes came to: as the last, with all that was changed and truncated."""
    truncated = [passage_id for answer in answers for passage_id in answer.truncated]
    return answers[-1].model_copy(update={"changed": sum(a.changed for a in answers), "truncated": truncated})


def _vectors(answer: EmbeddingsResponse, count: int) -> "np.ndarray":
    """Return vectors in the order of their texts, float32 [count, dimensions].

    Raises:
        ValueError: they are not one for each text, of one length.
    """
    import numpy as np

    rows = sorted(answer.data, key=lambda row: row.index)
    if [row.index for row in rows] != list(range(count)):
        raise ValueError(f"{len(rows)} for {count} texts")
    packed = [row.embedding for row in rows]
    return np.stack(
        [
            np.frombuffer(base64.b64decode(vector, validate=True), "<f4").astype(np.float32)
            if isinstance(vector, str)
            else np.asarray(vector, np.float32)
            for vector in packed
        ]
    )


def _checked_url(text: str) -> str:
    """Return the server's address without the slash at its end.

    Raises:
        UserError: it is no address of a server, or holds a password, which messages would show.
    """
    example = "http://127.0.0.1:8000"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise UserError(f"The server's url is no address ({error}); write it as {example} is.") from None
    if url.userinfo or url.query or url.fragment:
        raise UserError(
            f"The server's url may hold no user, password, query or fragment; write it as {example} is, and give the "
            f"key as api_key or in the environment variable {KEY_VARIABLE}."
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"The server's url {text!r} is no address; write it as {example} is.")
    return str(url).rstrip("/")


def _checked_key(key: str | None) -> str | None:
    """Return an API key; None if there is none.

    Raises:
        UserError: it has characters that no key has; the HTTP library's own message would show it.
    """
    key = (key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UserError(
            f"The API key (api_key, or the environment variable {KEY_VARIABLE}) has blanks or letters other than ASCII "
            "in it; copy it anew."
        )
    return key or None
