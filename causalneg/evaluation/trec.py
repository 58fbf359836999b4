"""Run files and relevance judgements in TREC format, written and read so that every reader sees the same ranking."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote, unquote

import fsspec
import numpy as np

from causalneg.errors import UserError
from causalneg.evaluation.metrics import Run, ranked
from causalneg.sources.items import BrokenError
from causalneg.sources.opening import unpacked
from causalneg.sources.qrels import QrelLines

_SIGN, _REST = np.uint32(1 << 31), np.uint32((1 << 31) - 1)
_BELOW_NORMAL = (1 << 23) - 1  # the largest fp32 that some programs take for zero, as a whole number
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")


def encoded(text: str) -> str:
    """Return an id as one field of a line: white space and control characters percent-encoded.

    A percent sign is encoded only where it would be read as one of these; most ids stay as they are.
    """
    out = [quote(c) if c.isspace() or not c.isprintable() else c for c in text]
    for at, character in enumerate(text):
        if character == "%" and _ENCODED.match(text, at):
            out[at] = "%25"
    return "".join(out) or "%00"


def decoded(field: str) -> str:
    """Return the id that `encoded` made a field of."""
    return unquote(field) if "%" in field else field


def falling(scores: Sequence[float]) -> np.ndarray:
    """Return scores, the best first, with equal ones set apart by the least step there is, float32 `[hits]`.

    trec_eval keeps scores in fp32 and puts equal ones in the order of ids from the last; a file without equal scores
    is ranked the same by everyone.

    Raises:
        ValueError: a score is no finite fp32 number.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(scores, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a run's scores must be finite fp32 numbers")
    # Positive numbers are ordered as their bits are: as whole numbers, neighbours differ by one.
    bits = values.view(np.uint32)
    size = np.maximum((bits & _REST).astype(np.int64) - _BELOW_NORMAL, 0)
    places = np.arange(len(values))
    steps = np.minimum.accumulate(np.where(bits & _SIGN, -size, size) + places) - places
    size = np.where(steps, np.abs(steps) + _BELOW_NORMAL, 0).astype(np.uint32)
    return np.where(steps < 0, size | _SIGN, size).astype(np.uint32).view(np.float32)


def run_lines(run: Run, tag: str) -> str:
    """Return a run in TREC format: query, Q0, passage, rank from 1, score, tag.

    Passages are in the order of scores, equal ones in that of ids. Nine digits tell any two fp32 numbers apart.

    Raises:
        ValueError: a score is no finite fp32 number.
    """
    lines = []
    for query, scores in run.items():
        passages = ranked(scores)
        name = encoded(query)
        for rank, (passage, score) in enumerate(
            zip(passages, falling([scores[p] for p in passages]).tolist(), strict=True), 1
        ):
            lines.append(f"{name} Q0 {encoded(passage)} {rank} {score:.9g} {tag}\n")
    return "".join(lines)


@contextmanager
def _opened(path: str) -> Iterator[Iterable[bytes]]:
    """Open a file or URL, unpacked where it is compressed.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with fsspec.open(path, "rb") as raw, unpacked(raw, path) as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (OSError, EOFError, ImportError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be read ({reason}); is it a whole file?") from error


def _lines(path: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield where each line is, its fields, and the line; empty ones are left out.

    Raises:
        UserError: the file cannot be read or is no text.
    """
    with _opened(path) as file:
        for number, raw in enumerate(file, 1):
            raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            where = f"{path}, line {number}"
            try:
                # By the bytes of ASCII's white space alone: ids may hold other kinds.
                fields, line = [field.decode() for field in raw.split()], raw.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: this is not UTF-8 text.") from error
            if fields:
                yield where, fields, line


def read_run(path: str) -> dict[str, dict[str, float]]:
    """Read a run file; what ranks is the score, and the rank in the file is not looked at.

    Args:
        path: file or URL, maybe compressed.

    Raises:
        UserError: it cannot be read, or a line is wrong; file, line and fault are named.
    """
    run: dict[str, dict[str, float]] = {}
    for where, fields, _ in _lines(path):
        if len(fields) != 6:
            raise UserError(
                f"{where}: a line of a run has 6 fields (query Q0 passage rank score tag), this one has {len(fields)}."
            )
        query, _, passage, _, score, _ = fields
        try:
            value = float(score)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise UserError(f"{where}: the score {score[:40]!r} is no finite number.")
        hits, name = run.setdefault(decoded(query), {}), decoded(passage)
        if name in hits:
            raise UserError(f"{where}: the passage {passage!r} is there twice for the query {query!r}.")
        hits[name] = value
    if not run:
        raise UserError(f"{path} is empty; a run has lines of query, Q0, passage, rank, score and tag.")
    return run


def read_qrels(path: str) -> dict[str, dict[str, int]]:
    """Read relevance judgements: TREC's four columns, BEIR's three, or columns that the first line names.

    Args:
        path: file or URL, maybe compressed.

    Raises:
        UserError: it cannot be read, or a line is wrong; file, line and fault are named.
    """
    qrels: dict[str, dict[str, int]] = {}
    taken = QrelLines(path)
    for where, _, line in _lines(path):
        try:
            found = taken.take(line)
        except BrokenError as error:
            raise UserError(f"{where}: {error}.") from error
        if found is None:
            continue
        # BEIR: ids as they are, white space and all
        query, passage = (decoded(i) if found.is_trec else i for i in (found.query, found.passage))
        judged = qrels.setdefault(query, {})
        if judged.setdefault(passage, found.score) != found.score:
            raise UserError(f"{where}: the passage {passage!r} was judged otherwise before for the query {query!r}.")
    if not qrels:
        raise UserError(f"{path} holds no judgements.")
    return qrels
