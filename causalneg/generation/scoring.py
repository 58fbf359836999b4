"""Every score of a negative that needs no LLM: from the texts, and from the base encoder."""

from collections.abc import Callable, Sequence

from causalneg.generation.edit.author import Encode
from causalneg.generation.gates import edits
from causalneg.generation.gates.copying import copied_from_reference, copied_runs, near_copy, query_copied
from causalneg.generation.gates.spans import answer_left
from causalneg.generation.gates.style import CorpusStyle, form_defects, style_distance
from causalneg.generation.rows import Pair
from causalneg.generation.text import words
from causalneg.margins import relative_score
from causalneg.records import Analysis, Negative

Rescore = Callable[[str, Sequence[str]], list[float]]  # a query and texts to a cross-encoder's scores


def text_scores(
    negative: Negative, pair: Pair, analysis: Analysis, style: CorpusStyle
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the scores that need the texts alone, and for some of them what they are about."""
    positive, query = pair.positive, pair.query.text
    requirement = next(r for r in analysis.requirements if r.id == negative.requirement_id)
    defects = form_defects(negative.text, positive.text)
    distance, feature = style_distance(negative.full_text, style, positive.full_text)
    if negative.edit is None:
        left, what = answer_left(negative.text, requirement, query, positive.title)
    else:
        spans = edits.answer_left(negative, pair)
        left, what = float(len(spans)), ", ".join(spans)
    positives = [p.full_text for p in (positive, *pair.other_positives)]
    scores = {
        "length_ratio": len(words(negative.text)) / max(1, len(words(positive.text))),
        "form_defects": float(len(defects)),
        "style_distance": distance,
        "overlap": near_copy(negative.full_text, positives),
        "query_copied": query_copied(negative.text, query, positive.text),
        "answer_left": left,
    }
    if negative.edit is None:
        scores["reference_copied"] = copied_from_reference(negative.text, [r.text for r in pair.references])
    notes = {
        "form_defects": "; ".join(defects),
        "style_distance": feature,
        "query_copied": ", ".join(copied_runs(negative.text, query, positive.text)),
        "answer_left": what,
    }
    return scores | edits.edit_scores(negative, pair), {name: text for name, text in notes.items() if text}


class Scorer:
    """Scores that need no LLM.

    Args:
        encode: the base encoder.
        style: of the corpus.
        rescore: the cross-encoder, if there is one.
    """

    def __init__(self, encode: Encode, style: CorpusStyle, rescore: Rescore | None = None) -> None:
        self._encode, self._style, self._rescore = encode, style, rescore

    def scores(
        self, pair: Pair, analysis: Analysis, negatives: Sequence[Negative]
    ) -> list[tuple[dict[str, float], dict[str, str]]]:
        """Return each negative's scores, and for some of them what they are about."""
        if not negatives:
            return []
        rows = []
        for negative, vectors in zip(negatives, self._encoder_scores(pair, negatives), strict=True):
            scores, notes = text_scores(negative, pair, analysis, self._style)
            rows.append((scores | vectors, notes))
        return rows

    def _encoder_scores(self, pair: Pair, negatives: Sequence[Negative]) -> list[dict[str, float]]:
        query = pair.query.text
        texts = [pair.positive.full_text, *(n.full_text for n in negatives)]
        positive, *own = (self._encode(texts, "passage") @ self._encode([query], "query")[0]).tolist()
        rows = [encoder_scores(score, positive, pair.mined_scores) for score in own]
        if self._rescore:
            best, *crossed = self._rescore(query, texts)
            for row, score in zip(rows, crossed, strict=True):
                row |= {"cross_score": score, "cross_relative_score": relative_score(score, best)}
        return rows


def hardness(score: float, mined_scores: Sequence[float]) -> float:
    """Return the share of the query's mined negatives that score below the negative; 0 where none was mined."""
    return sum(1 for m in mined_scores if m < score) / len(mined_scores) if mined_scores else 0.0


def encoder_scores(score: float, positive_score: float, mined_scores: Sequence[float]) -> dict[str, float]:
    """Return the scores that come from the base encoder's cosines with the query."""
    return {
        "cosine": score,
        "positive_cosine": positive_score,
        "relative_score": relative_score(score, positive_score),
        "hardness": hardness(score, mined_scores),
    }
