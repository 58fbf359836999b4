"""What the kinds of negatives are before anything is trained: how hard, and how well their source shows."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import BaseModel

from benchmarks.experiment.examples import BAND, Example, relative
from causalneg.config import Config
from causalneg.generation.reporting.leakage import LeakageReport, Probe, SourcedText, draw_mined, leakage
from causalneg.margins import relative_score
from causalneg.models import resolve
from causalneg.records import Negative
from causalneg.vectors import embed_texts
from causalneg.workspace import Workspace


class Kind(BaseModel):
    """Negatives of a kind, by the encoder that mines; hardness is the cosine as a share of the positive's.

    Attributes:
        hardness: its 10 %, 50 % and 90 % quantile.
        above_band: share of 95 % of the positive's cosine or more.
        above_positive: share of the positive's cosine or more.
        source: probe that tells them from mined ones by their embeddings; None for mined ones, and for too few.
        surface: the same by lengths, punctuation and the like.
    """

    negatives: int
    hardness: list[float]
    above_band: float
    above_positive: float
    source: Probe | None = None
    surface: Probe | None = None


def _kind(hardness: Iterable[float], report: LeakageReport | None = None) -> Kind:
    values = np.array(list(hardness))
    return Kind(
        negatives=len(values),
        hardness=np.quantile(values, [0.1, 0.5, 0.9]).tolist(),
        above_band=float((values >= BAND).mean()),
        above_positive=float((values >= 1).mean()),
        source=report and report.overall,
        surface=report and report.surface,
    )


def _leakage(
    workspace: Workspace, config: Config, examples: Sequence[Example], generated: Sequence[Negative]
) -> LeakageReport:
    """Probe generated negatives against as many mined ones of the same queries."""
    wanted = Counter(n.query_id for n in generated)
    mined = {e.query_id: [m.passage_id for m in e.mined] for e in examples}
    drawn = draw_mined(wanted, mined, config.seed)
    passages = workspace.passages({passage for _, passage in drawn})
    texts = [SourcedText.of_negative(n) for n in generated]
    texts += [SourcedText.of_passage(query, passages[passage], "mined") for query, passage in drawn]
    encoder = resolve(config.mining_encoder)
    vectors = embed_texts(workspace, encoder, config.encode, [[t.text for t in texts]])
    return leakage(texts, vectors.take(np.arange(len(texts))), config.seed)


def describe(workspace: Workspace, config: Config, examples: Sequence[Example], number: int) -> dict[str, Kind]:
    """Describe the negatives that the arms take: the first mined ones of each pair, and the generated ones by kind.

    Args:
        workspace: imported and mined; keeps the vectors.
        config: names the encoder that mines.
        examples: at least one.
        number: mined negatives of each pair.
    """
    taken = [m for e in examples for m in e.mined[:number]]
    found = {"mined": _kind(relative_score(m.score, m.positive_score) for m in taken)}
    for kind in examples[0].generated:
        generated = [n for e in examples for n in e.generated[kind]]
        found[kind] = _kind(map(relative, generated), _leakage(workspace, config, examples, generated))
    return found


KINDS = ["negatives", "number", "hardness 10, 50, 90 %", "95 % or more", "100 % or more", "AUC of source", "by surface"]


def kind_row(name: str, kind: Kind) -> list[str]:
    """Return the row of a kind under `KINDS`."""
    probes = [f"{p.auc:.2f} ({p.low:.2f} to {p.high:.2f})" if p else "" for p in (kind.source, kind.surface)]
    hardness = ", ".join(f"{value:.2f}" for value in kind.hardness)
    return [name, f"{kind.negatives:,}", hardness, f"{kind.above_band:.2f}", f"{kind.above_positive:.2f}", *probes]
