"""`causalneg compare`: runs against the first of them, query by query. It writes nothing into the workspace."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from rich.markup import escape

from causalneg.config import CompareSettings, Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.evaluation.differences import Difference, differences, show_counts, show_interval, show_p
from causalneg.evaluation.judged import read_judged
from causalneg.evaluation.metrics import Qrels, Run, Scores, compute, parse_measures
from causalneg.evaluation.report import curve, page, paragraph, table
from causalneg.evaluation.trec import read_qrels, read_run
from causalneg.files import write_whole
from causalneg.workspace import Workspace

_HEADER = ["measure", "run", "mean", "difference", "95 % interval", "p", "p of t-test", "wins/ties/losses"]
_NOTE = (
    "Differences to {first}, over {queries} queries; intervals by bootstrap. p: paired randomisation test and paired "
    "t-test, two-sided, each after Holm over {tests} tests."
)


class ComparedRun(BaseModel):
    """A run.

    Attributes:
        name: as it is shown.
        file: that it was read from.
        missing: judged queries that it lacks; they count zero.
        unjudged: queries of it that are not judged; they do not count.
        mean: measure to mean.
    """

    name: str
    file: str
    missing: int
    unjudged: int
    mean: dict[str, float]


class Comparison(BaseModel):
    """What `compare` found.

    Attributes:
        qrels: where the judgements are from.
        queries: judged queries with a positive: those that count.
        runs: the first is the one that the others are compared with.
        differences: of every other run, measure by measure.
    """

    qrels: str
    queries: int
    runs: list[ComparedRun]
    differences: list[Difference]


@dataclass(frozen=True)
class _Judgements:
    where: str
    qrels: Qrels


def _find(workspace: Workspace, name: str) -> str:
    """Return the file or URL of a run.

    Raises:
        UserError: it is neither a file nor the name of a run in the workspace.
    """
    inside = f"runs/{name}.trec"
    if "://" in name or Path(name).expanduser().is_file():
        return str(Path(name).expanduser()) if "://" not in name else name
    if "/" not in name and workspace.exists(inside):
        return workspace.path(inside) if workspace.is_local else f"{workspace.root_url.rstrip('/')}/{inside}"
    files = workspace.list_files(["runs"], ".trec")
    there = ", ".join(file.removeprefix("runs/").removesuffix(".trec") for file in files) or "none"
    raise UserError(
        f"There is no run file {name}, and the workspace {workspace.root_url} has no run of that name; it has: {there}."
    )


def _names(given: list[str]) -> list[str]:
    """Return the names that runs are shown by: the files' alone where that tells them apart."""
    short = [Path(name).name for name in given]
    return short if len(set(short)) == len(short) else given


def _judgements(settings: CompareSettings, workspace: Workspace) -> _Judgements:
    """Read the judgements of the queries that have a positive.

    Raises:
        UserError: there are none, or too few for a test.
    """
    if settings.qrels is None:
        workspace.require("import")
        ids = workspace.column("corpus", "id")
        judged = read_judged(workspace, settings.split, ids, "compare.split")
        found = _Judgements(f"the split {settings.split!r} of {workspace.root_url}", judged.qrels)
    else:
        qrels = read_qrels(settings.qrels)
        relevant = {query: judged for query, judged in qrels.items() if any(r > 0 for r in judged.values())}
        found = _Judgements(settings.qrels, relevant)
    if len(found.qrels) < 2:
        raise UserError(f"Two queries with a positive are the least that can be tested; {found.where} has fewer.")
    return found


def _read(files: Mapping[str, str], judgements: _Judgements) -> dict[str, Run]:
    """Read the runs.

    Raises:
        UserError: a run has no judged query.
    """
    runs: dict[str, Run] = {}
    for name, file in files.items():
        run = read_run(file)
        if run.keys().isdisjoint(judgements.qrels):
            raise UserError(
                f"None of the {len(run):,} queries of {file} (as {next(iter(run))!r}) is judged in {judgements.where} "
                f"(as {next(iter(judgements.qrels))!r}); are they of the same data set and split?"
            )
        runs[name] = run
    return runs


def compare(settings: CompareSettings, workspace: Workspace, seed: int) -> tuple[Comparison, dict[str, Scores]]:
    """Compare runs.

    Returns:
        what was found, and the scores of each run by name.

    Raises:
        UserError: a setting, a file or the judgements are wrong.
    """
    parse_measures(settings.measures, "compare.measures")
    if len(settings.runs) < 2:
        raise UserError("Name two runs or more: `causalneg compare RUN_A RUN_B`; each is compared with the first.")
    if len(set(settings.runs)) < len(settings.runs):
        raise UserError("A run is named twice; name each once.")
    files = dict(zip(_names(settings.runs), [_find(workspace, name) for name in settings.runs], strict=True))
    judgements = _judgements(settings, workspace)
    runs = _read(files, judgements)
    scores = {name: compute(settings.measures, judgements.qrels, run) for name, run in runs.items()}
    described = [
        ComparedRun(
            name=name,
            file=files[name],
            missing=len(judgements.qrels.keys() - run.keys()),
            unjudged=len(run.keys() - judgements.qrels.keys()),
            mean=scores[name].mean,
        )
        for name, run in runs.items()
    ]
    found = differences(scores, seed, settings.resamples)
    return Comparison(qrels=judgements.where, queries=len(judgements.qrels), runs=described, differences=found), scores


def rows(comparison: Comparison) -> list[list[str]]:
    """Return one row per measure and run, under the header of the table."""
    by_place = {(d.measure, d.run): d for d in comparison.differences}
    out = []
    for measure in comparison.runs[0].mean:
        for run in comparison.runs:
            row = [measure, run.name, f"{run.mean[measure]:.4f}"]
            if found := by_place.get((measure, run.name)):
                row += [f"{found.difference:+.4f}", show_interval(found), show_p(found.p_randomisation_holm)]
                row += [show_p(found.p_t_holm), show_counts(found)]
            out.append(row + [""] * (len(_HEADER) - len(row)))
    return out


def remarks(comparison: Comparison) -> list[str]:
    """Return a sentence for each run that does not have just the judged queries."""
    out = []
    for run in comparison.runs:
        if run.missing:
            out.append(f"{run.name} lacks {run.missing:,} of the {comparison.queries:,} queries; they count zero.")
        if run.unjudged:
            out.append(f"{run.name} has {run.unjudged:,} queries that are not judged; they do not count.")
    return out


def _note(comparison: Comparison) -> str:
    return _NOTE.format(
        first=comparison.runs[0].name, queries=f"{comparison.queries:,}", tests=len(comparison.differences)
    )


def html(comparison: Comparison, scores: Mapping[str, Scores]) -> str:
    """Return the comparison as a page."""
    first, *others = scores
    measure = next(iter(scores[first].mean))
    theirs = scores[first].per_query[measure]
    curves = [
        curve(
            f"{measure} of {name} minus {first}, query by query",
            [value - theirs[query] for query, value in scores[name].per_query[measure].items()],
        )
        for name in others
    ]
    said = [paragraph(text) for text in (f"Judgements: {comparison.qrels}.", *remarks(comparison))]
    return page("Comparison of runs", [*said, table(_HEADER, rows(comparison), _note(comparison)), *curves])


def _write(output: str, text: str) -> None:
    path = Path(output).expanduser()
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise UserError(f"compare.output: {path} cannot be written ({error.strerror}).") from error


def run(config: Config, workspace: Workspace, report: Reporter) -> Comparison:
    """Compare runs and print the table, or everything as JSON.

    Raises:
        UserError: a setting, a file or the judgements are wrong.
    """
    settings = config.compare
    comparison, scores = compare(settings, workspace, config.seed)
    if settings.output is not None:
        _write(settings.output, html(comparison, scores))
    if settings.json_:
        # Past the console, which would read markup and emoji codes in names.
        report.console.file.write(json.dumps(comparison.model_dump(), indent=1, ensure_ascii=False) + "\n")
        return comparison
    shown = [[escape(cell) for cell in row] for row in rows(comparison)]
    report.table(f"{comparison.queries:,} queries", _HEADER, shown)
    for line in (_note(comparison), *remarks(comparison)):
        report.line(line)
    return comparison
