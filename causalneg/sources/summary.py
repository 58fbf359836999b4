"""Tells the user what an import took and what became of the rest."""

from collections.abc import Mapping

from causalneg.console import Reporter
from causalneg.sources.outcomes import OUTCOMES


def show(
    report: Reporter,
    passages: int,
    splits: Mapping[str, int],
    rows: Mapping[str, Mapping[str, int]],
    outcomes: Mapping[str, int],
) -> None:
    """Print the result in a line, and two tables where not every row was simply accepted.

    Args:
        report: where to print.
        passages: how many there are.
        splits: how many queries each split has.
        rows: by what was read, how many rows were read, accepted, merged and rejected.
        outcomes: by kind, how many rows were not simply accepted.
    """
    listed = ", ".join(f"{count} {name}" for name, count in splits.items())
    report.line(f"import: {passages} passages, queries: {listed}")
    if not outcomes:
        return
    counts = [[name, *(f"{number:,}" for number in tally.values())] for name, tally in rows.items()]
    report.table("Rows", ["", "read", "accepted", "merged", "rejected"], counts)
    kinds = [[f"{k}: {OUTCOMES[k].meaning}", f"{number:,}", OUTCOMES[k].becomes] for k, number in outcomes.items()]
    report.table("What was not simply accepted", ["", "rows", "became"], kinds)
    if any(tally["rejected"] for tally in rows.values()):
        report.line("Rejected rows are in rejected/ with file, line and reason.")
