"""From trials to tables: means over seeds, differences to mining only with intervals and p-values, and a picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from benchmarks.common import Row
from benchmarks.experiment.arms import MINED
from benchmarks.experiment.trial import BASE, Trial
from causalneg.evaluation.contrast import of_clusters, outcomes_of
from causalneg.evaluation.significance import holm, paired

PAIRS, MARGIN, PLANTED = "pair accuracy", "pair margin", "planted above the positive"
_INFORMATION = "mutual information of source and similarity"


class Figure(BaseModel):
    """A measure of an arm against mining only, over the same queries, or clusters of pairs.

    Attributes:
        seeds: the mean for each seed.
        difference: of the means over seeds, with a bootstrap interval over queries or clusters.
        p: of a paired randomisation test on values averaged over seeds, corrected (Holm) for the arms compared.
    """

    mean: float
    seeds: list[float]
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p: float = 1.0
    wins: int = 0
    ties: int = 0
    losses: int = 0


class Summary(BaseModel):
    """An arm: its figures by measure, its diagnostics as means over seeds, and its cost."""

    arm: str
    figures: dict[str, Figure]
    diagnostics: dict[str, float]
    cost: dict[str, float]


def _values(trial: Trial, measure: str, clusters: np.ndarray) -> np.ndarray:
    """Return a trial's values, one for each query or cluster of pairs, in a fixed order."""
    measured = trial.measured
    if measure in (PAIRS, MARGIN):
        margins = np.array(measured.contrast)
        outcomes = outcomes_of(np.stack([margins, np.zeros_like(margins)], axis=1))
        return of_clusters(outcomes[:, 0 if measure == PAIRS else 1], clusters)
    if measure == PLANTED:
        return np.array([float(measured.planted[q] > 0) for q in sorted(measured.planted)])
    values = measured.retrieval[measure]
    return np.array([values[q] for q in sorted(values)])


def _measures(trial: Trial) -> list[str]:
    found = list(trial.measured.retrieval)
    return found + ([PAIRS, MARGIN] if trial.measured.contrast else []) + [PLANTED]


def _mean(trials: Sequence[Trial], of: Callable[[Trial], Mapping[str, float | None]]) -> dict[str, float]:
    rows = [of(trial) for trial in trials]
    means = {}
    for name in rows[0]:
        values = [v for row in rows if (v := row[name]) is not None]
        if values:
            means[name] = float(np.mean(values))
    return means


def summarise(trials: Mapping[str, Sequence[Trial]], clusters: np.ndarray) -> list[Summary]:
    """Sum up arms, each with its trials by seed; mining only must be among them.

    Args:
        trials: by arm.
        clusters: number of each contrast pair's cluster, int `[pairs]`.
    """
    against = trials[MINED]
    summaries = [
        Summary(
            arm=arm,
            figures={},
            diagnostics=_mean(own, lambda t: t.measured.figures.model_dump()),
            cost=_mean(own, lambda t: t.cost.model_dump() | {"measure_seconds": t.measured.seconds}),
        )
        for arm, own in trials.items()
    ]
    for measure in _measures(against[0]):
        theirs = np.mean([_values(trial, measure, clusters) for trial in against], axis=0)
        for summary in summaries:
            values = [_values(trial, measure, clusters) for trial in trials[summary.arm]]
            seeds = [float(v.mean()) for v in values]
            figure = Figure(mean=float(np.mean(seeds)), seeds=seeds)
            if summary.arm != MINED:
                found = paired(np.mean(values, axis=0), theirs, seed=0)
                figure = figure.model_copy(
                    update=found.model_dump(include={"difference", "low", "high", "wins", "ties", "losses"})
                    | {"p": found.p_randomisation}
                )
            summary.figures[measure] = figure
        compared = [s for s in summaries if s.arm not in (MINED, BASE)]
        corrected = holm([s.figures[measure].p for s in compared])
        for summary, p in zip(compared, corrected, strict=True):
            summary.figures[measure] = summary.figures[measure].model_copy(update={"p": p})
    return summaries


def rows_of(summaries: Sequence[Summary], goals: Mapping[tuple[str, str], float]) -> list[Row]:
    """Return the rows of the result file: each arm against mining only, and that against the base encoder."""
    by_arm = {s.arm: s for s in summaries}
    rows = []
    for summary in summaries:
        if summary.arm == BASE:
            continue
        peer = by_arm[BASE if summary.arm == MINED else MINED]
        for measure, figure in summary.figures.items():
            theirs = peer.figures[measure].mean
            better = (theirs, figure.mean) if measure == PLANTED else (figure.mean, theirs)
            ratio = better[0] / better[1] if better[1] else 1.0
            goal = goals.get((summary.arm, measure))
            rows.append(Row(f"{measure}, {summary.arm}", "share", figure.mean, peer.arm, theirs, ratio, goal))
    return rows


def printed(summaries: Sequence[Summary], measures: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table that is printed."""
    header = ["arm", *measures, "MI", "seconds"]
    table = []
    for summary in summaries:
        cells = [summary.arm]
        for measure in measures:
            figure = summary.figures[measure]
            cell = f"{figure.mean:.4f}"
            if len(figure.seeds) > 1:
                cell += f" ±{np.std(figure.seeds, ddof=1):.4f}"
            if summary.arm != MINED:
                cell += f"\n{figure.difference:+.4f} [{figure.low:+.4f}, {figure.high:+.4f}]"
                cell += f" p {figure.p:.3f}" if summary.arm != BASE else ""
            cells.append(cell)
        information = summary.diagnostics.get("mutual_information")
        cells.append("" if information is None else f"{information:.3f}")
        table.append([*cells, f"{summary.cost['train_seconds']:.0f}"])
    return header, table


def draw(summaries: Sequence[Summary], measures: Sequence[str], title: str, file: Path) -> None:
    """Draw each arm's difference to mining only with its interval, a panel for each measure."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Drawing

    shown = [s for s in summaries if s.arm != MINED][::-1]
    with rc_context({"svg.hashsalt": "quality", "font.size": 8}):
        drawing = Drawing(figsize=(2.6 + 2.4 * len(measures), 0.8 + 0.24 * len(shown)), layout="constrained")
        panels: Any = drawing.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for panel, measure in zip(panels, measures, strict=True):
            for at, summary in enumerate(shown):
                figure = summary.figures[measure]
                good = -figure.difference if measure == PLANTED else figure.difference
                sure = figure.low > 0 or figure.high < 0
                colour = "#59636e" if not sure else "#116329" if good > 0 else "#a40e26"
                panel.plot([figure.low, figure.high], [at, at], color=colour, linewidth=1.5)
                panel.plot([figure.difference], [at], "o", color=colour, markersize=4)
            panel.axvline(0, color="#1b1f24", linewidth=0.6)
            panel.locator_params(axis="x", nbins=4)
            panel.set_title(f"{measure}\n{MINED}: {_of(summaries, MINED).figures[measure].mean:.4f}", fontsize=8)
            panel.set_yticks(range(len(shown)), [s.arm for s in shown])
            panel.spines[["top", "right"]].set_visible(False)
        drawing.suptitle(title, fontsize=9)
        drawing.savefig(file, metadata={"Date": None})


def _of(summaries: Sequence[Summary], arm: str) -> Summary:
    return next(s for s in summaries if s.arm == arm)
