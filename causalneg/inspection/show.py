"""Prints what an inspection found."""

import json
from collections.abc import Mapping

from rich.filesize import decimal
from rich.markup import escape

from causalneg.console import Reporter
from causalneg.inspection.findings import Findings, FolderFinding, StageFinding

_LINE = 400  # characters of a row that is shown


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in values.items()
    )


def _stage(finding: StageFinding) -> list[str]:
    counts = finding.counts
    numbers = (
        [f"{n:,}" for n in (counts.rows_in, counts.accepted, counts.rejected, counts.failed)] if counts else [""] * 4
    )
    seconds = "" if finding.seconds is None else f"{finding.seconds:,.1f}"
    state = f"{finding.state}, new one begun" if finding.counts and finding.building else finding.state
    return [finding.stage, state, *numbers, _listed(finding.tokens), seconds, finding.finished or ""]


def _folder(finding: FolderFinding) -> list[str]:
    rows = "" if finding.rows is None else f"{finding.rows:,}"
    return [escape(finding.folder), rows, f"{finding.files:,}", decimal(finding.bytes)]


def _show_stages(findings: Findings, report: Reporter) -> None:
    header = ["stage", "state", "rows in", "accepted", "rejected", "failed", "tokens", "seconds", "finished"]
    report.table("Stages", header, [_stage(s) for s in findings.stages])
    for stage in findings.stages:
        if stage.settings:
            report.line(f"{stage.stage}: {_listed({n: json.dumps(v) for n, v in stage.settings.items()})}")
    for folder in findings.folders:
        if folder.reasons:
            report.line(f"{folder.folder}, rejected or failed: {_listed(folder.reasons)}")


def _show_overlap(findings: Findings, report: Reporter) -> None:
    header = ["split", "queries", "same in train", "nearly", "positives", "positive in train", "negative in train"]
    rows = []
    for o in findings.overlap:
        numbers = (o.queries, o.same_queries, o.near_queries, o.positives, o.positives_in_train, o.negatives_in_train)
        rows.append([escape(o.split), *(f"{n:,}" for n in numbers)])
    report.table("What other splits share with train", header, rows)
    for overlap in findings.overlap:
        for a in overlap.examples:
            report.line(f"  {overlap.split} {a.query_id}: {a.query!r} / train {a.train_query_id}: {a.train_query!r}")


def show(findings: Findings, report: Reporter) -> None:
    """Print tables, and then rows of each folder."""
    report.line(f"{findings.workspace}: {decimal(findings.bytes)}, read by causalneg {findings.version}")
    _show_stages(findings, report)
    report.table("Folders", ["folder", "rows", "files", "size"], [_folder(f) for f in findings.folders])
    if findings.splits:
        rows = [[escape(s.split), *(f"{n:,}" for n in (s.queries, s.judgements, s.positives))] for s in findings.splits]
        report.table("Splits", ["split", "queries", "judgements", "positives"], rows)
    if findings.lengths:
        rows = [[f.what, *(f"{n:,}" for n in (f.of, f.texts, f.min, f.median, f.p95, f.max))] for f in findings.lengths]
        report.table("Words", ["", "there are", "measured", "min", "median", "p95", "max"], rows)
    if findings.overlap:
        _show_overlap(findings, report)
    for folder in findings.folders:
        if folder.sample:
            report.line(f"{folder.folder}: {len(folder.sample)} of {folder.rows:,} rows", style="bold")
        for row in folder.sample:
            text = json.dumps(row, ensure_ascii=False, default=str)
            report.line("  " + (text if len(text) <= _LINE else text[: _LINE - 1] + "…"))
