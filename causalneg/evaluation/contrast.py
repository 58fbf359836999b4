"""Contrast sets: does an encoder score the positive above a passage that differs from it in what the query needs?

A pair scores 1 where the positive's cosine is above the counterfactual's, and a half where they are equal.
"""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from pydantic import Field

from causalneg.config import EvaluateSettings
from causalneg.console import Reporter
from causalneg.embedding import Precision, encode
from causalneg.errors import UserError
from causalneg.evaluation.significance import paired
from causalneg.records import Record
from causalneg.sources.folder import Folder
from causalneg.sources.opening import Tally, opened, plain_suffix
from causalneg.sources.tables import JSON_LINES

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SLICE = 1024  # texts encoded, or pairs scored, at a time
_DRAWS = 10_000  # of a bootstrap or a test, unless told otherwise
_LEVEL = (0.025, 0.975)
# Cosines of the same tokens differ by up to 2e-7 with the batch that they are in: that far apart is equal. An edit
# behind the encoder's longest length is such a case.
_EQUAL = 1e-6
_DEFAULTS = EvaluateSettings()
_TEXTS = ("query", "positive", "counterfactual")


class ContrastPair(Record):
    """A query, a passage that answers it, and one that nearly does."""

    query: str
    positive: str
    counterfactual: str
    group: str = Field("", description="what the counterfactual violates, or any other kind to report apart")
    cluster: str = Field(
        "", description="what pairs have in common that makes them alike, as the page; the query when empty"
    )


class ContrastFigures(Record):
    """What an encoder makes of some pairs; intervals are of 95 %.

    Attributes:
        ties: pairs whose two cosines are equal.
        accuracy: share of pairs with the positive above the counterfactual; ties count half.
        margin: mean of the positive's cosine less the counterfactual's.
    """

    pairs: int
    ties: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    margin: float
    margin_low: float
    margin_high: float


class ContrastResult(Record):
    """Figures of all pairs, and of those of each group that has a name."""

    overall: ContrastFigures
    by_group: dict[str, ContrastFigures]


class ContrastChange(Record):
    """By how much the trained encoder's mean is above the base encoder's, over the same pairs.

    Attributes:
        low: lower end of its 95 % interval, by a bootstrap of clusters.
        high: its upper end.
        p: two-sided, of the paired randomisation test over clusters.
    """

    difference: float
    low: float
    high: float
    p: float


class ContrastChanges(Record):
    """The changes of both figures."""

    accuracy: ContrastChange
    margin: ContrastChange


# Reading


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Open a file of lines and say how it is named to the user; unpacked where it is compressed.

    Raises:
        UserError: it is missing or damaged, also for damage met later, or a zip has not one file of lines.
    """
    if path.suffix.lower() != ".zip":
        with opened(path, Tally()) as file:
            yield str(path), file
        return
    packed = Folder(path)
    names = [name for name in packed.all_files() if plain_suffix(name) in JSON_LINES]
    if len(names) != 1:
        raise UserError(f"{path} holds {len(names)} files *.jsonl where one is needed; name a file instead.")
    with packed.opened(names[0]) as file:
        yield packed.where(names[0]), file


def _found(row: dict[str, Any], names: Iterable[str]) -> tuple[str, Any]:
    """Return the first of some fields that a row has, and what it holds; dots lead into objects."""
    for name in names:
        value: Any = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            return name, value
    return "", ""


def _pair(line: bytes, group: Sequence[str], cluster: Sequence[str]) -> ContrastPair:
    """Return the pair of a line.

    Raises:
        ValueError: it holds none; says why as half a sentence.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({getattr(error, 'msg', None) or error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object is needed, not a {type(row).__name__}")
    fields = {name: _text(name, row.get(name)) for name in _TEXTS}
    for name, names in (("group", group), ("cluster", cluster)):
        there, value = _found(row, names)
        if isinstance(value, (dict, list)):
            raise ValueError(f"field {there!r} is no text but a {type(value).__name__}; give each row a text there")
        fields[name] = str(value)
    return ContrastPair(**fields)


def _text(name: str, value: Any) -> str:  # noqa: ANN401 - any JSON
    if value is None:
        raise ValueError(f"field {name!r} is missing; give each row a text there")
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} is no text but a {type(value).__name__}; give each row a text there")
    if not value or value.isspace():
        raise ValueError(f"field {name!r} is empty; give each row a text there")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"field {name!r} holds half a character (a lone surrogate); write the whole one")
    return value


def read_pairs(
    path: str,
    group: Sequence[str] = _DEFAULTS.contrast_group,
    cluster: Sequence[str] = _DEFAULTS.contrast_cluster,
) -> list[ContrastPair]:
    """Read pairs from JSONL, plain or compressed, or the only file of it in a .zip.

    Args:
        path: the file.
        group: fields of which the first that a row has is its group; `a.b` is field `b` of the object in `a`.
        cluster: likewise, its cluster.

    Raises:
        UserError: the file cannot be read, holds no pair, or a row is broken.
    """
    pairs = []
    with _opened(Path(path)) as (where, file):
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                pairs.append(_pair(line, group, cluster))
            except ValueError as error:
                raise UserError(f"{where}, line {number}: {error}.") from error
    if not pairs:
        raise UserError(f"{where} holds no pair; each line is an object with the fields {', '.join(_TEXTS)}.")
    return pairs


# Scoring


def score_pairs(
    encoder: "SentenceTransformer",
    pairs: Sequence[ContrastPair],
    batch_size: int = 32,
    precision: Precision = "fp32",
    report: Reporter | None = None,
) -> np.ndarray:
    """Return the cosines of each query with its positive and its counterfactual, float32 `[pairs, 2]`.

    Every distinct text is encoded once, with the encoder's own prompts. fp32 by default, since the two texts of a
    pair may be closer to each other than bf16 is to fp32: their cosines differ by 0.001 there.

    Raises:
        UserError: the encoder gives vectors that are not finite.
    """
    queries = list(dict.fromkeys(pair.query for pair in pairs))
    passages = list(dict.fromkeys(text for pair in pairs for text in (pair.positive, pair.counterfactual)))
    with (report or Reporter(io.StringIO())).meter("contrast pairs", len(queries) + len(passages), "texts") as meter:

        def vectors(texts: list[str], kind: Literal["query", "passage"]) -> np.ndarray:
            parts = []
            for start in range(0, len(texts), _SLICE):
                part = texts[start : start + _SLICE]
                parts.append(encode(encoder, part, kind, batch_size, precision))
                meter.advance(len(part))
            return np.concatenate(parts)

        of_queries, of_passages = vectors(queries, "query"), vectors(passages, "passage")
    query, passage = ({text: row for row, text in enumerate(texts)} for texts in (queries, passages))
    rows = np.array([(query[p.query], passage[p.positive], passage[p.counterfactual]) for p in pairs])
    scores = np.empty((len(pairs), 2), np.float32)
    for start in range(0, len(pairs), _SLICE):
        part = rows[start : start + _SLICE]
        for column in (0, 1):
            products = of_queries[part[:, 0]] * of_passages[part[:, column + 1]]
            scores[start : start + _SLICE, column] = products.sum(axis=1)
    return scores


# Figures


def outcomes_of(scores: np.ndarray) -> np.ndarray:
    """Return 1, a half or 0 for each pair and its margin, float64 `[pairs, 2]`, of cosines `[pairs, 2]`."""
    margin = scores[:, 0].astype(np.float64) - scores[:, 1]
    tied = np.abs(margin) <= _EQUAL
    return np.stack([np.where(tied, 0.5, margin > 0), margin], axis=1)


def cluster_numbers(pairs: Sequence[ContrastPair]) -> np.ndarray:
    """Return the number of each pair's cluster, int64 `[pairs]`; pairs without one are alike in their query."""
    keys = [("cluster", pair.cluster) if pair.cluster else ("query", pair.query) for pair in pairs]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def of_clusters(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return a value for each cluster `[clusters]`, whose mean is that of the pairs' values `[pairs]`.

    Pairs of a cluster are not independent; a test that flips or draws these flips or draws whole clusters.
    """
    _, number = np.unique(clusters, return_inverse=True)
    sums = np.bincount(number, values)
    return sums * (len(sums) / len(values))


def group_rows(pairs: Sequence[ContrastPair]) -> dict[str, np.ndarray]:
    """Return the rows of the pairs of each group that has a name, sorted by it."""
    names = np.array([pair.group for pair in pairs], object)
    return {name: np.flatnonzero(names == name) for name in sorted(set(names.tolist()) - {""})}


def drawn_means(values: np.ndarray, clusters: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return the means over pairs when clusters are drawn with replacement.

    Pairs of a cluster have errors in common: a whole cluster is there or not. Where each pair is a cluster of its
    own, this is the plain bootstrap.

    Args:
        values: `[pairs, columns]`.
        clusters: int `[pairs]`.
        seed: of the draws.
        resamples: how many draws.

    Returns:
        float64 `[resamples, columns]`.

    Source: Field & Welsh 2007, JRSS B 69(3), the cluster bootstrap.
    """
    _, number = np.unique(clusters, return_inverse=True)
    sums = np.zeros((number.max() + 1, values.shape[1] + 1))
    np.add.at(sums, number, np.concatenate([values, np.ones((len(values), 1))], axis=1))
    draw = np.random.default_rng(seed)
    drawn = np.array([sums[draw.integers(len(sums), size=len(sums))].sum(axis=0) for _ in range(resamples)])
    return np.asarray(drawn[:, :-1] / drawn[:, -1:])


def _interval(draws: np.ndarray, widest: tuple[float, float], clusters: int) -> tuple[float, float]:
    """Return the 95 % interval of drawn means `[draws]`; of a single cluster nothing is known but the widest."""
    if clusters < 2:
        return widest
    low, high = np.quantile(draws, _LEVEL)
    return float(low), float(high)


def _figures(outcomes: np.ndarray, clusters: np.ndarray, seed: int, resamples: int) -> ContrastFigures:
    draws, count = drawn_means(outcomes, clusters, seed, resamples), len(np.unique(clusters))
    accuracy, margin = _interval(draws[:, 0], (0.0, 1.0), count), _interval(draws[:, 1], (-2.0, 2.0), count)
    return ContrastFigures(
        pairs=len(outcomes),
        ties=int((outcomes[:, 0] == 0.5).sum()),
        accuracy=float(outcomes[:, 0].mean()),
        accuracy_low=accuracy[0],
        accuracy_high=accuracy[1],
        margin=float(outcomes[:, 1].mean()),
        margin_low=margin[0],
        margin_high=margin[1],
    )


def summarise(pairs: Sequence[ContrastPair], scores: np.ndarray, seed: int, resamples: int = _DRAWS) -> ContrastResult:
    """Return accuracy and margin of all pairs and by group, with intervals from a bootstrap of clusters.

    Args:
        pairs: at least one.
        scores: as `score_pairs` gives them, `[pairs, 2]`.
        seed: of the draws.
        resamples: how many draws.
    """
    outcomes, clusters = outcomes_of(scores), cluster_numbers(pairs)
    groups = {
        name: _figures(outcomes[rows], clusters[rows], seed, resamples) for name, rows in group_rows(pairs).items()
    }
    return ContrastResult(overall=_figures(outcomes, clusters, seed, resamples), by_group=groups)


def _changes(base: np.ndarray, trained: np.ndarray, clusters: np.ndarray, seed: int, resamples: int) -> ContrastChanges:
    """Compare the outcomes of pairs, both `[pairs, 2]`."""
    difference, count = trained - base, len(np.unique(clusters))
    draws = drawn_means(difference, clusters, seed, resamples)

    def change(column: int, width: float) -> ContrastChange:
        low, high = _interval(draws[:, column], (-width, width), count)
        ours, theirs = (of_clusters(side[:, column], clusters) for side in (trained, base))
        p = paired(ours, theirs, seed, resamples).p_randomisation if count > 1 else 1.0
        return ContrastChange(difference=float(difference[:, column].mean()), low=low, high=high, p=p)

    return ContrastChanges(accuracy=change(0, 1.0), margin=change(1, 4.0))


def compare(
    pairs: Sequence[ContrastPair], base: np.ndarray, trained: np.ndarray, seed: int, resamples: int = _DRAWS
) -> dict[str, ContrastChanges]:
    """Compare the cosines `[pairs, 2]` of two encoders: of all pairs, under "", and of those of each group.

    Args:
        pairs: at least one.
        base: as `score_pairs` gives them.
        trained: likewise, with the encoder whose gain is told.
        seed: of the draws.
        resamples: draws of the bootstrap and of the test.
    """
    before, after, clusters = outcomes_of(base), outcomes_of(trained), cluster_numbers(pairs)
    rows_of = {"": np.arange(len(pairs)), **group_rows(pairs)}
    return {name: _changes(before[r], after[r], clusters[r], seed, resamples) for name, r in rows_of.items()}
