"""Reads data sets by their name in ir_datasets, which downloads and keeps them."""

import difflib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from causalneg.errors import UserError
from causalneg.sources.items import (
    JUDGEMENTS,
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
from causalneg.sources.values import checked_metadata, checked_text, excerpt, score_of

if TYPE_CHECKING:
    import ir_datasets

PREFIX = "irds:"
_SPLITS = ("train", "dev", "validation", "valid", "val", "test", "eval")
_Item = TypeVar("_Item")


def _load(name: str) -> "ir_datasets.Dataset":
    """Return a data set.

    Raises:
        UserError: there is none of that name; it names the nearest.
    """
    import ir_datasets

    try:
        return ir_datasets.load(name)
    except KeyError as error:
        near = difflib.get_close_matches(name, list(ir_datasets.registry), 3, 0.5)
        hint = f"; did you mean {' or '.join(PREFIX + n for n in near)}?" if near else "."
        raise UserError(f"ir_datasets has no data set {name!r}{hint}") from error


def _judged(name: str) -> list[str]:
    """Return the names with judgements: the name itself, or all below it that judge the same passages.

    Raises:
        UserError: there are none, or no passages.
    """
    import ir_datasets

    dataset = _load(name)
    if not dataset.has_docs():
        raise UserError(f"ir_datasets has no passages under {name!r}; name a data set with passages and judgements.")
    if dataset.has_qrels() and dataset.has_queries():
        return [name]
    below = sorted(n for n in ir_datasets.registry if n.startswith(name + "/"))
    found = [n for n in below if _same_passages(name, n) and _load(n).has_qrels() and _load(n).has_queries()]
    if not found:
        raise UserError(f"ir_datasets has no judgements under {name!r}; name a data set that has some.")
    return found


def _same_passages(one: str, other: str) -> bool:
    import ir_datasets

    return _load(other).has_docs() and ir_datasets.docs_parent_id(one) == ir_datasets.docs_parent_id(other)


def _split_names(names: list[str]) -> dict[str, str]:
    """Return the split of each name: its last part if that is usual and free, else `test`, else the whole path."""
    splits: dict[str, str] = {}
    for name in names:
        last = name.rsplit("/", 1)[-1]
        split = last if last in _SPLITS else "test"
        if split in splits.values():
            split = name.split("/", 1)[-1].replace("/", "-")
        splits[name] = split
    return splits


def _given(stream: Callable[[], Iterator[_Item]], name: str) -> Iterator[_Item]:
    """Stream what ir_datasets gives; what goes wrong there is told with the data set's name."""
    items: Iterator[_Item] | None = None
    while True:
        try:
            items = stream() if items is None else items
            item = next(items)
        except StopIteration:
            return
        except Exception as error:  # downloads, archives and parsers of many hands: anything may be raised
            message = " ".join(str(error).split())[:200]
            raise UserError(
                f"ir_datasets cannot give {name} ({type(error).__name__}: {message}); "
                "its documentation says where a file of your own goes."
            ) from error
        yield item


def _passage(doc: Any, where: str, line: int) -> PassageRow:  # noqa: ANN401 - ir_datasets has a type per data set
    """Return a passage.

    A title stands apart where the default text is no more than title and text. What a document has beside them
    is its metadata; where the default text is made otherwise, the rest may be in it, and there is none.

    Raises:
        BrokenError: it has no text, or its metadata are none.
    """
    whole, title = doc.default_text(), getattr(doc, "title", None)
    text = getattr(doc, "text", None)
    if isinstance(title, str) and isinstance(text, str) and whole == f"{title} {text}":
        rest = {name: value for name, value in doc._asdict().items() if name not in ("doc_id", "title", "text")}
        if not title.strip():
            checked_text(text, "text")
        metadata, left_out = checked_metadata(rest.get("metadata", rest), "metadata")
        return PassageRow(doc.doc_id, title, text, where, line, metadata, left_out)
    return PassageRow(doc.doc_id, "", checked_text(whole, "text"), where, line)


def _rows(splits: dict[str, str]) -> Iterator[SourceRow]:
    first = next(iter(splits))
    where = f"{PREFIX}{first} docs"
    for line, doc in enumerate(_given(_load(first).docs_iter, where), 1):
        try:
            yield _passage(doc, where, line)
        except BrokenError as error:
            yield BrokenRow(PASSAGES, error.kind, str(error), excerpt(doc), where, line)
    for name in splits:
        where = f"{PREFIX}{name} queries"
        for line, query in enumerate(_given(_load(name).queries_iter, where), 1):
            try:
                yield QueryRow(query.query_id, checked_text(query.default_text(), "text"), where, line)
            except BrokenError as error:
                yield BrokenRow(QUERIES, error.kind, str(error), excerpt(query), where, line)
    for name, split in splits.items():
        where = f"{PREFIX}{name} qrels"
        for line, qrel in enumerate(_given(_load(name).qrels_iter, where), 1):
            try:
                yield JudgementRow(qrel.query_id, qrel.doc_id, score_of(qrel.relevance), split, where, line)
            except BrokenError as error:
                yield BrokenRow(JUDGEMENTS, error.kind, str(error), excerpt(qrel), where, line)


def _count(name: str) -> int:
    """Return how many passages there are where ir_datasets knows it without a download, otherwise 0."""
    known = _load(name).metadata().get("docs", {})
    return int(known.get("count", 0))


def read_irds(source: str) -> Dataset:
    """Read one or several data sets over the same passages: `irds:beir/nfcorpus/test`, more of them by commas.

    A name without judgements stands for all below it that judge the same passages.

    Raises:
        UserError: there is no such data set, or their passages are not the same.
    """
    import ir_datasets

    asked = [name.strip() for name in source.removeprefix(PREFIX).split(",") if name.strip()]
    if not asked:
        raise UserError("import.source names no data set; write it as irds:beir/nfcorpus.")
    names = list(dict.fromkeys(n for name in asked for n in _judged(name.removeprefix(PREFIX))))
    for name in names[1:]:
        if not _same_passages(names[0], name):
            raise UserError(f"{PREFIX}{names[0]} and {PREFIX}{name} have different passages; import them apart.")
    splits = _split_names(names)
    return Dataset(
        digest=lambda: f"ir_datasets {ir_datasets.__version__} {splits}",
        rows=partial(_rows, splits),
        total=_count(names[0]),
    )
