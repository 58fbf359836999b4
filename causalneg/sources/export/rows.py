"""Train pairs with the texts and scores of their negatives, read a part at a time."""

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


def _read_scores(workspace: Workspace, rows: Sequence[RowIds]) -> dict[tuple[str, str], Scores]:
    """Return the scores of the pairs' positives and negatives, by query and document."""
    scores: dict[tuple[str, str], Scores] = {}
    wanted = pa.array(sorted({row.query_id for row in rows}), pa.string())
    for batch in workspace.read_batches("mined", Mined):
        useful = pc.or_(
            pc.equal(batch.column("verdict"), "accepted"),
            pc.equal(batch.column("relation"), Relation.POSITIVE.value),
        )
        mask = pc.and_(useful, pc.is_in(batch.column("query_id"), wanted))
        for mined in from_table(Mined, batch.filter(mask)):
            known = {"dense": mined.dense_score} | ({} if mined.cross_score is None else {"cross": mined.cross_score})
            scores[mined.query_id, mined.passage_id] = known
    if any(row.generated for row in rows):
        for batch in workspace.read_batches("negatives", Negative):
            mask = pc.and_(pc.equal(batch.column("verdict"), "accepted"), pc.is_in(batch.column("query_id"), wanted))
            for negative in from_table(Negative, batch.filter(mask)):
                if "cosine" in negative.scores:
                    scores[negative.query_id, negative.id] = {"dense": negative.scores["cosine"]}
    return scores


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
    for start in range(0, len(rows), PART_PAIRS):
        part = rows[start : start + PART_PAIRS]
        texts, scores = read_texts(workspace, part), _read_scores(workspace, part) if scored else {}
        yield [_example(row, texts, scores) for row in part]
