"""Tells the user what an import took and what became of the rest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from causalneg.console import Reporter
from causalneg.sources.hints import listed
from causalneg.sources.outcomes import OUTCOMES

_TRAIN = "train"  # the split that the other stages learn from


def show(report: Reporter, details: Mapping[str, Any]) -> None:
    """Print the result in a line, what was not used, and two tables where not every row was simply accepted.

    Args:
        report: where to print.
        details: of the manifest: `passages`, how many there are; `splits`, how many queries each has; `rows`, by what
            was read, how many rows were read, accepted, merged and rejected; `outcomes`, by kind, how many rows were
            not simply accepted; `columns_not_used` by file; `files_not_read`.
    """
    splits, outcomes = details["splits"], details["outcomes"]
    named = ", ".join(f"{count} {name}" for name, count in splits.items())
    report.line(f"import: {details['passages']} passages, queries: {named}")
    for file, columns in details["columns_not_used"].items():
        report.line(f"columns not used: {listed(columns)} (of {Path(file).name}; see import.fields)")
    if files := details["files_not_read"]:
        report.line(f"files not read: {listed(files)}")
    if _TRAIN not in splits:
        report.line(
            f"There is no split called {_TRAIN}, which mine, generate and train work on; there is {', '.join(splits)}.",
            style="yellow",
        )
    if not outcomes:
        return
    counts = [[name, *(f"{number:,}" for number in tally.values())] for name, tally in details["rows"].items()]
    report.table("Rows", ["", "read", "accepted", "merged", "rejected"], counts)
    kinds = [[f"{k}: {OUTCOMES[k].meaning}", f"{number:,}", OUTCOMES[k].becomes] for k, number in outcomes.items()]
    report.table("What was not simply accepted", ["", "rows", "became"], kinds)
    if any(tally["rejected"] for tally in details["rows"].values()):
        report.line("Rejected rows are in rejected/ with file, line and reason.")
