"""Train pairs with the texts and scores of their negatives, read a part at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.examples import RowIds, Texts, read_texts
from causalneg.records import Mined, Negative, Passage, Relation, Source, from_table, full_text
from causalneg.workspace import Workspace

PART_PAIRS = 8192  # pairs whose texts are held at a time; the corpus is read once for each part

Scorer = Literal["dense", "cross"]
Scores = dict[str, float]
"""A score for each scorer that gave one."""


class Document(NamedTuple):
    """A positive or a negative with its scores for the query; `source` is None for a positive."""

    id: str
    title: str
    text: str
    source: Source | None
    scores: Scores

    @property
    def full_text(self) -> str:
        """Title and text as one string."""
        return full_text(self.title, self.text)


class Example(NamedTuple):
    """A pair with its negatives: the mined ones first, then the generated ones."""

    query_id: str
    query: str
    positive: Document
    negatives: tuple[Document, ...]

    def scores(self, scorer: Scorer) -> list[float] | None:
        """Return the scores of the positive and of every negative, or None where one is missing."""
        scores = [d.scores.get(scorer) for d in (self.positive, *self.negatives)]
        return None if None in scores else [s for s in scores if s is not None]


def _known(dense: float | None, cross: float | None) -> Scores:
    return {name: score for name, score in (("dense", dense), ("cross", cross)) if score is not None}


class _Scores:
    """Gathers the scores of a part's documents by query and document.

    A positive has the scores it was found with. One that no search found has the score that its generated
    negatives were compared with, or, if it is the query's only one, that its mined negatives were.
    """

    def __init__(self, rows: Sequence[RowIds], positives: Counter[str]) -> None:
        self.of: dict[tuple[str, str], Scores] = {}
        self._wanted = pa.array(sorted({row.query_id for row in rows}), pa.string())
        self._only = {r.query_id: r.positive_id for r in rows if r.mined and positives[r.query_id] == 1}

    def _add(self, query_id: str, document_id: str, exact: Scores) -> None:
        self.of[query_id, document_id] = self.of.get((query_id, document_id), {}) | exact

    def read_mined(self, workspace: Workspace) -> None:
        """Take the scores of mined negatives and of the positives that were found."""
        compared: dict[tuple[str, str], Scores] = {}
        for batch in workspace.read_batches("mined", Mined):
            useful = pc.or_(
                pc.equal(batch.column("verdict"), "accepted"),
                pc.equal(batch.column("relation"), Relation.POSITIVE.value),
            )
            mask = pc.and_(useful, pc.is_in(batch.column("query_id"), self._wanted))
            for row in from_table(Mined, batch.filter(mask)):
                self._add(row.query_id, row.passage_id, _known(row.dense_score, row.cross_score))
                if row.query_id in self._only:
                    scorer = "dense" if row.cross_score is None else "cross"
                    compared[row.query_id, self._only[row.query_id]] = {scorer: row.positive_score}
        self.of = {key: compared.get(key, {}) | self.of.get(key, {}) for key in compared.keys() | self.of.keys()}

    def read_generated(self, workspace: Workspace) -> None:
        """Take the scores of generated negatives and of the positives they were compared with."""
        for batch in workspace.read_batches("negatives", Negative):
            accepted = pc.equal(batch.column("verdict"), "accepted")
            mask = pc.and_(accepted, pc.is_in(batch.column("query_id"), self._wanted))
            for row in from_table(Negative, batch.filter(mask)):
                self._add(row.query_id, row.id, _known(row.scores.get("cosine"), None))
                self._add(row.query_id, row.positive_id, _known(row.scores.get("positive_cosine"), None))


def _read_scores(
    workspace: Workspace, rows: Sequence[RowIds], positives: Counter[str]
) -> dict[tuple[str, str], Scores]:
    scores = _Scores(rows, positives)
    scores.read_mined(workspace)
    if any(row.generated for row in rows):
        scores.read_generated(workspace)
    return scores.of


def _example(row: RowIds, texts: Texts, scores: dict[tuple[str, str], Scores]) -> Example:
    def document(passage: Passage, source: Source | None) -> Document:
        known = scores.get((row.query_id, passage.id), {})
        return Document(passage.id, passage.title, passage.text, source, known)

    return Example(
        row.query_id,
        texts.queries[row.query_id],
        document(texts.passages[row.positive_id], None),
        (
            *(document(texts.passages[i], Source.MINED) for i in row.mined),
            *(document(texts.generated[i], Source.GENERATED) for i in row.generated),
        ),
    )


def read_examples(workspace: Workspace, rows: Sequence[RowIds], scored: bool) -> Iterator[list[Example]]:
    """Read the texts of pairs and, if asked for, the scores, `PART_PAIRS` at a time, in their order.

    Raises:
        UserError: a text is not there.
    """
    positives = Counter(row.query_id for row in rows)
    for start in range(0, len(rows), PART_PAIRS):
        part = rows[start : start + PART_PAIRS]
        texts, scores = read_texts(workspace, part), _read_scores(workspace, part, positives) if scored else {}
        yield [_example(row, texts, scores) for row in part]
