"""Runs against the first of them: every measure's difference with its interval, tests and counts."""

from collections.abc import Mapping, Sequence

from causalneg.evaluation.metrics import Scores
from causalneg.evaluation.significance import Paired, holm, paired


class Difference(Paired, frozen=True):
    """A run's values of a measure minus those of the first run, query by query.

    Attributes:
        run: name of the run.
        measure: name of the measure.
        p_randomisation_holm: p of the randomisation test, corrected over all runs and measures compared with it.
        p_t_holm: likewise of the t-test.
    """

    run: str
    measure: str
    p_randomisation_holm: float
    p_t_holm: float


def differences(scores: Mapping[str, Scores], seed: int, resamples: int) -> list[Difference]:
    """Compare every run with the first one, measure by measure.

    Args:
        scores: by run, all of the same measures and queries.
        seed: of all that is drawn.
        resamples: random signs, and samples of the bootstrap.

    Returns:
        measure by measure, those of the runs in their order; none where there is but one query.
    """
    first, *others = scores
    queries = list(next(iter(scores[first].per_query.values())))
    if len(queries) < 2:
        return []

    def values(run: str, measure: str) -> list[float]:
        return [scores[run].per_query[measure][query] for query in queries]

    pairs = [(run, measure) for measure in scores[first].mean for run in others]
    found = [paired(values(run, measure), values(first, measure), seed, resamples) for run, measure in pairs]
    corrected = zip(holm([p.p_randomisation for p in found]), holm([p.p_t for p in found]), strict=True)
    return [
        Difference(**p.model_dump(), run=run, measure=measure, p_randomisation_holm=randomisation, p_t_holm=t)
        for p, (run, measure), (randomisation, t) in zip(found, pairs, corrected, strict=True)
    ]


def show_p(p: float) -> str:
    """Return a p-value as it is shown."""
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def show_interval(difference: Paired) -> str:
    """Return the interval as it is shown."""
    return f"{difference.low:+.4f} to {difference.high:+.4f}"


def show_counts(difference: Paired) -> str:
    """Return wins, ties and losses as they are shown."""
    return f"{difference.wins}/{difference.ties}/{difference.losses}"


BEFORE_AFTER = ["measure", "before", "after", "difference", "95 % interval", "p", "wins/ties/losses"]


def before_after(
    before: Mapping[str, float], after: Mapping[str, float], found: Sequence[Difference]
) -> list[list[str]]:
    """Return one row per measure under `BEFORE_AFTER`; p is the randomisation test's, after Holm.

    Args:
        before: measure to mean.
        after: likewise.
        found: the differences of after; where there are none, dashes are shown.
    """
    by_measure = {difference.measure: difference for difference in found}
    rows = []
    for measure, mean in before.items():
        row = [measure, f"{mean:.4f}", f"{after[measure]:.4f}", f"{after[measure] - mean:+.4f}"]
        if difference := by_measure.get(measure):
            row += [show_interval(difference), show_p(difference.p_randomisation_holm), show_counts(difference)]
        rows.append(row + ["-"] * (len(BEFORE_AFTER) - len(row)))
    return rows
