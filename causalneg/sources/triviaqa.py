"""Reads TriviaQA's own distribution: questions in `qa/*.json`, their documents in `evidence/`.

A document is cut into passages of 100 words, as DPR cuts Wikipedia. A passage is relevant to a question when it is of a
document that TriviaQA gathered for the question and holds the answer or one of its aliases: the data set's own distant
supervision (Joshi et al., 2017), nothing of ours.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from causalneg.errors import UserError
from causalneg.sources.contents import COMPRESSIONS
from causalneg.sources.folder import is_hidden, variants
from causalneg.sources.items import (
    PASSAGES,
    QUERIES,
    BrokenError,
    BrokenRow,
    Dataset,
    JudgementRow,
    PassageRow,
    QueryRow,
    SourceRow,
)
from causalneg.sources.jsonarray import array_elements
from causalneg.sources.opening import Tally, digest_of, existing, opened, plain_suffix
from causalneg.sources.values import checked_text, excerpt

PASSAGE_WORDS = 100
_SPLITS = ("train", "dev")  # those with answers
# Where a question names documents, the folder they lie in.
_EVIDENCE = {"EntityPages": "wikipedia", "SearchResults": "web"}
_HEAD = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"(Data|Domain|VerifiedEval|Version)"\s*:')
_WORD = re.compile(r"[^\W_]+")
_ARTICLES = frozenset(("a", "an", "the"))


class _Document(NamedTuple):
    """A document that a question names; `name` is its path below the evidence, `field` where it is named."""

    name: str
    title: str
    field: str


def is_triviaqa(path: Path) -> bool:
    """Whether a path is TriviaQA's folder, or one of its files of questions."""
    if path.is_dir():
        return (path / "qa").is_dir() and (path / "evidence").is_dir()
    if plain_suffix(path) != ".json":
        return False
    with opened(path, Tally()) as file:
        return _HEAD.match(file.read(256)) is not None


def _question_files(path: Path) -> list[Path]:
    """Return the files with questions: the one named, or those of the Wikipedia domain.

    Raises:
        UserError: there are none with answers.
    """
    files = [path] if path.is_file() else [existing(path / "qa" / f"wikipedia-{split}.json") for split in _SPLITS]
    files = [file for file in files if file.is_file()]
    if not files:
        raise UserError(f"{path / 'qa'} holds no wikipedia-train.json or wikipedia-dev.json; unpack TriviaQA anew.")
    for file in files:
        if "without-answers" in file.name:
            raise UserError(f"{file} has no answers, so no passage is known to be relevant; take the file of dev.")
    return files


def _other_questions(path: Path, read: list[Path]) -> list[str]:
    """Return the files of questions in TriviaQA's folder that are not read."""
    there = sorted(file for file in (path / "qa").iterdir() if not is_hidden(file.name))
    return [f"qa/{file.name}" for file in there if file not in read]


def _evidence_of(file: Path) -> Path:
    """Return the folder of the documents, which the unfiltered questions share with the others.

    Raises:
        UserError: it is not where TriviaQA has it.
    """
    beside = [file.parent, file.parent.parent, file.parent.parent / "triviaqa-rc"]
    for folder in beside:
        if (folder / "evidence").is_dir():
            return folder / "evidence"
    raise UserError(
        f"{file} has no folder `evidence` beside it; unpack it with triviaqa-rc, which holds the documents."
    )


def _split_of(file: Path) -> str:
    """Return `train` or `dev`, by the file's name; `dev` for a name of one's own."""
    return "train" if "train" in file.name else "dev"


def normalised(text: str) -> str:
    """Return a text's words in small letters, without punctuation and articles, as TriviaQA compares answers."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return " ".join(word for word in words if word not in _ARTICLES)


def _answers(entry: Mapping[str, Any]) -> list[str]:
    """Return the answer and its aliases, normalised, each between spaces so that only whole words match.

    Raises:
        BrokenError: there are none.
    """
    answer = entry.get("Answer")
    if not isinstance(answer, Mapping):
        raise BrokenError("missing_field", "field 'Answer' is missing or no object; is it a file without answers?")
    found = [checked_text(answer.get("Value"), "Answer.Value")]
    for name in ("Aliases", "NormalizedAliases"):
        aliases = answer.get(name, [])
        if not isinstance(aliases, list):
            raise BrokenError("wrong_type", f"field 'Answer.{name}' is no list but {type(aliases).__name__}")
        found += [checked_text(alias, f"Answer.{name}", may_be_empty=True) for alias in aliases]
    words = dict.fromkeys(normalised(text) for text in found)
    words.pop("", None)
    if not words:
        raise BrokenError("empty_text", f"field 'Answer' holds no word to look for but {excerpt(found[0])[:40]!r}")
    return [f" {text} " for text in words]


def _documents(entry: Mapping[str, Any]) -> list[_Document]:
    """Return the documents that a question names, each once.

    Raises:
        BrokenError: a field that names them is not as it should be.
    """
    found: dict[str, _Document] = {}
    for field, folder in _EVIDENCE.items():
        pages = entry.get(field) or []
        if not isinstance(pages, list):
            raise BrokenError("wrong_type", f"field {field!r} is no list but {type(pages).__name__}")
        for number, page in enumerate(pages):
            where = f"{field}[{number}]"
            if not isinstance(page, Mapping):
                raise BrokenError("wrong_type", f"field {where!r} is no object but {type(page).__name__}")
            path = PurePosixPath(checked_text(page.get("Filename"), f"{where}.Filename"))
            if path.is_absolute() or ".." in path.parts:
                raise BrokenError("wrong_type", f"field '{where}.Filename' is no path below the evidence: {path}")
            title = checked_text(page.get("Title") or "", f"{where}.Title", may_be_empty=True)
            name = f"{folder}/{path}"
            found.setdefault(name, _Document(name, title or path.stem.replace("_", " "), f"{where}.Filename"))
    return list(found.values())


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(maxsize=64)
def _listing(folder: Path) -> dict[str, str]:
    return {_plain(path.name): path.name for path in folder.iterdir()} if folder.is_dir() else {}


def _path(evidence: Path, document: _Document) -> Path:
    """Return a document's file; some are named in other letters or another form of Unicode than on the disk.

    Raises:
        BrokenError: there is none.
    """
    path = existing(evidence / document.name)
    if path.is_file():
        return path
    if other := _listing(path.parent).get(_plain(path.name)):
        return path.with_name(other)
    raise BrokenError("missing_file", f"field {document.field!r} names {path}, which is not there")


def _content(path: Path) -> bytes:
    """Return what is in a document, whatever it begins with."""
    if path.suffix.lower() not in COMPRESSIONS:
        return path.read_bytes()
    with opened(path, Tally()) as file:
        return file.read()


@lru_cache(maxsize=64)
def _passages(path: Path) -> tuple[str, ...]:
    """Return a document's passages.

    Raises:
        BrokenError: it holds no text.
    """
    try:
        words = _content(path).decode().split()
    except UnicodeDecodeError as error:
        raise BrokenError("not_utf8", f"{path} is not UTF-8") from error
    if not words:
        raise BrokenError("empty_text", f"{path} is empty")
    return tuple(" ".join(words[n : n + PASSAGE_WORDS]) for n in range(0, len(words), PASSAGE_WORDS))


def _passage_id(document: _Document, number: int) -> str:
    return f"{document.name.removesuffix('.txt')}#{number}"


def _entries(file: Path, tally: Tally) -> Iterator[tuple[int, Any]]:
    with opened(file, tally) as stream:
        yield from enumerate(array_elements(stream, str(file), member="Data"), 1)


def _passage_rows(file: Path, line: int, entry: Any, evidence: Path, seen: set[str]) -> Iterator[SourceRow]:  # noqa: ANN401
    """Yield the passages of the documents that a question names first; broken questions are told with the others."""
    try:
        documents = _documents(entry) if isinstance(entry, Mapping) else []
    except BrokenError:
        return
    for document in documents:
        if document.name in seen:
            continue
        seen.add(document.name)
        try:
            path = _path(evidence, document)
            for number, text in enumerate(_passages(path), 1):
                yield PassageRow(_passage_id(document, number), document.title, text, str(path), number)
        except BrokenError as error:
            yield BrokenRow(PASSAGES, error.kind, str(error), excerpt(entry), str(file), line)


def _relevant(entry: Mapping[str, Any], answers: list[str], evidence: Path) -> Iterator[str]:
    """Yield the ids of the passages of a question's documents that hold an answer."""
    for document in _documents(entry):
        try:
            passages = _passages(_path(evidence, document))
        except BrokenError:  # told where its passages are read
            continue
        for number, text in enumerate(passages, 1):
            words = f" {normalised(text)} "
            if any(answer in words for answer in answers):
                yield _passage_id(document, number)


def _question_rows(file: Path, line: int, entry: Any, evidence: Path) -> Iterator[SourceRow]:  # noqa: ANN401
    """Yield a question and its judgements."""
    try:
        if not isinstance(entry, Mapping):
            raise BrokenError("wrong_type", f"an object is needed, not {type(entry).__name__}")
        name = checked_text(entry.get("QuestionId"), "QuestionId")
        text = checked_text(entry.get("Question"), "Question")
        relevant = list(_relevant(entry, _answers(entry), evidence))
    except BrokenError as error:
        yield BrokenRow(QUERIES, error.kind, str(error), excerpt(entry), str(file), line)
        return
    yield QueryRow(name, text, str(file), line)
    for passage in relevant:
        yield JudgementRow(name, passage, 1, _split_of(file), str(file), line)


def _rows(files: list[Path], evidence: Path, tally: Tally) -> Iterator[SourceRow]:
    seen: set[str] = set()
    for file in files:
        for line, entry in _entries(file, tally):
            yield from _passage_rows(file, line, entry, evidence, seen)
    for file in files:
        for line, entry in _entries(file, tally):
            yield from _question_rows(file, line, entry, evidence)


def _digest(files: list[Path], evidence: Path) -> str:
    """Return what changes with the questions, or with number and size of the documents, too many to read for it."""
    sizes = [p.stat().st_size for name in variants(["*.txt"]) for p in evidence.rglob(name)]
    return f"{digest_of(files)} evidence:{len(sizes)}:{sum(sizes)}"


def read_triviaqa(path: Path) -> Dataset:
    """Read TriviaQA's questions with their documents; passages come first, then questions and judgements.

    Questions and documents are read as streams, twice; only the documents' names are kept in memory.

    Args:
        path: the folder (`triviaqa-rc`), for its Wikipedia domain, or one file of questions (`qa/web-dev.json`).

    Raises:
        UserError: questions, answers or documents are missing.
    """
    files = _question_files(path)
    evidence, tally = _evidence_of(files[0]), Tally()
    return Dataset(
        digest=partial(_digest, files, evidence),
        rows=partial(_rows, files, evidence, tally),
        total=2 * sum(file.stat().st_size for file in files),
        unit="MB",
        done=lambda: tally.bytes,
        unread=[] if path.is_file() else _other_questions(path, files),
    )
