"""Both encoders on contrast sets and among planted counterfactuals: what is found, kept, printed and shown."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from causalneg.config import Config, EvaluateSettings
from causalneg.console import Reporter
from causalneg.embedding import load_encoder
from causalneg.errors import UserError
from causalneg.evaluation.contrast import (
    ContrastChange,
    ContrastChanges,
    ContrastFigures,
    ContrastPair,
    ContrastResult,
    compare,
    read_pairs,
    score_pairs,
    summarise,
)
from causalneg.evaluation.differences import show_p
from causalneg.evaluation.planted import (
    PlantedFigures,
    PlantedQuery,
    PlantedScores,
    Planter,
    measure_planted,
    planted_queries,
)
from causalneg.evaluation.report import paragraph, table
from causalneg.evaluation.significance import Paired, paired
from causalneg.files import file_sha256
from causalneg.models import ResolvedModel
from causalneg.records import Record
from causalneg.vectors import embed_corpus
from causalneg.workspace import Workspace

_BEFORE, _AFTER = "base", "trained"
_ALL = "all"  # of the rows of a table, the one that is no group
CHANGE = ["before", "after", "difference", "95 % interval", "p"]


# Contrast sets


class ContrastProbe(Record):
    """A contrast set under both encoders; `change` has all pairs under "" and then the groups."""

    base: ContrastResult
    trained: ContrastResult
    change: dict[str, ContrastChanges]


def contrast_files(settings: EvaluateSettings) -> dict[str, str]:
    """Return the files of contrast sets by the names they are reported under: without folder and suffix, unique."""
    found: dict[str, str] = {}
    for path in settings.contrast:
        stem = re.sub(r"(\.jsonl|\.ndjson|\.gz|\.zst|\.zip)+$", "", Path(path).name)
        name = base = re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "pairs"
        number = 1
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found[name] = path
    return found


def contrast_digests(settings: EvaluateSettings) -> list[str]:
    """Return a hash of each file, by which a change is noticed.

    Raises:
        UserError: a file is not there.
    """
    try:
        return [file_sha256(Path(path)) for path in settings.contrast]
    except OSError as error:
        raise UserError(f"evaluate.contrast: {error.filename} cannot be read: {error.strerror}.") from error


def read_contrast(settings: EvaluateSettings) -> dict[str, list[ContrastPair]]:
    """Read every contrast set, by its name.

    Raises:
        UserError: a file or a row is broken.
    """
    fields = settings.contrast_group, settings.contrast_cluster
    return {name: read_pairs(path, *fields) for name, path in contrast_files(settings).items()}


def contrast_scores(
    sets: Mapping[str, Sequence[ContrastPair]], model: ResolvedModel, config: Config, report: Reporter
) -> dict[str, np.ndarray]:
    """Score every contrast set with an encoder, as `score_pairs` does."""
    return {
        name: score_pairs(load_encoder(model), pairs, config.encode.batch_size, report=report)
        for name, pairs in sets.items()
    }


def probe_contrast(
    sets: Mapping[str, Sequence[ContrastPair]],
    workspace: Workspace,
    config: Config,
    scores: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, ContrastProbe]:
    """Compare both encoders' `contrast_scores`, and write the cosines of the pairs to `runs/`."""
    found = {}
    draws = config.seed, config.evaluate.resamples
    for name, pairs in sets.items():
        before, after = scores[_BEFORE][name], scores[_AFTER][name]
        _keep_contrast(workspace, name, pairs, {_BEFORE: before, _AFTER: after})
        found[name] = ContrastProbe(
            base=summarise(pairs, before, *draws),
            trained=summarise(pairs, after, *draws),
            change=compare(pairs, before, after, *draws),
        )
    return found


def _keep_contrast(
    workspace: Workspace, name: str, pairs: Sequence[ContrastPair], scores: Mapping[str, np.ndarray]
) -> None:
    texts = {field: [getattr(pair, field) for pair in pairs] for field in ContrastPair.model_fields}
    cosines = {
        f"{of}_{side}": own[:, column]
        for of, own in scores.items()
        for column, side in enumerate(("positive", "counterfactual"))
    }
    workspace.write_table(f"runs/contrast-{name}.parquet", pa.table({**texts, **cosines}))


def _change_cells(before: float, after: float, change: ContrastChange | Paired | None, p: float) -> list[str]:
    cells = [f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"]
    return [*cells, f"{change.low:+.4f} to {change.high:+.4f}", show_p(p)] if change else [*cells, "-", "-"]


def contrast_rows(probe: ContrastProbe) -> list[list[str]]:
    """Return the rows of a set's table: accuracy and margin of all pairs, then of each group."""

    def figures(result: ContrastResult, group: str) -> ContrastFigures:
        return result.by_group[group] if group else result.overall

    rows = []
    for group, changes in probe.change.items():
        base, trained = figures(probe.base, group), figures(probe.trained, group)
        for measure, change in (("accuracy", changes.accuracy), ("margin", changes.margin)):
            cells = _change_cells(getattr(base, measure), getattr(trained, measure), change, change.p)
            rows.append([group or _ALL, f"{base.pairs:,}", measure, *cells])
    return rows


_CONTRAST_HEADER = ["pairs of", "pairs", "measure", *CHANGE]
_CONTRAST_NOTE = (
    "Accuracy: share of pairs with the positive's cosine above the counterfactual's; ties count half. Margin: mean of "
    "the difference of both. Pairs that are alike (of a page, or else of a query) are drawn together for the interval "
    "of the difference, and change sign together in the randomisation test, whose p is not corrected."
)


def contrast_section(found: Mapping[str, ContrastProbe]) -> list[Markup]:
    """Return the page's sections on contrast sets; none where there are none."""
    return [
        Markup("<h2>Contrast set {}</h2>{}").format(name, table(_CONTRAST_HEADER, contrast_rows(probe), _CONTRAST_NOTE))
        for name, probe in found.items()
    ]


# Planted counterfactuals


class PlantedPair(Record):
    """The same queries and planted passages under both encoders; of a single query nothing is tested."""

    base: PlantedFigures
    trained: PlantedFigures
    above: Paired | None
    with_planted: Paired | None


class PlantedProbe(Record):
    """What was found with all planted passages, and with those of each violation alone.

    Attributes:
        measure: the retrieval measure that was taken.
    """

    measure: str
    overall: PlantedPair
    by_violation: dict[str, PlantedPair]


def queries_to_plant(
    workspace: Workspace, passage_ids: pa.ChunkedArray, report: Reporter
) -> Mapping[str, PlantedQuery]:
    """Return the queries that were not trained on, with the negatives to plant; where there are none, that is said."""
    queries = planted_queries(workspace, passage_ids)
    if not queries:
        report.line(
            "evaluate: no counterfactuals are planted: no query with accepted negatives was kept from training "
            "(train.dev.share, train.dev.min_queries)"
        )
    return queries


def planted_scores(
    workspace: Workspace,
    config: Config,
    model: ResolvedModel,
    queries: Mapping[str, PlantedQuery],
    passage_ids: pa.ChunkedArray,
    report: Reporter,
) -> dict[str, PlantedScores]:
    """Plant the negatives of queries, and see how an encoder ranks them; by violation, and all under ""."""
    settings = config.evaluate
    planter = Planter(
        workspace,
        model,
        config.encode,
        queries,
        embed_corpus(workspace, model, config.encode, report),
        passage_ids,
        settings.depth,
        report,
        settings.shard_passages,
    )
    return measure_planted(planter, queries, settings.measures[0], config.seed, settings.resamples)


def probe_planted(
    workspace: Workspace, config: Config, found: Mapping[str, Mapping[str, PlantedScores]]
) -> PlantedProbe:
    """Compare both encoders' `planted_scores`, and write what each query met to `runs/planted.parquet`."""
    _keep_planted(workspace, found)
    pairs = {
        violation: _planted_pair(found[_BEFORE][violation], found[_AFTER][violation], config)
        for violation in found[_BEFORE]
    }
    return PlantedProbe(measure=config.evaluate.measures[0], overall=pairs.pop(""), by_violation=pairs)


def _planted_pair(base: PlantedScores, trained: PlantedScores, config: Config) -> PlantedPair:
    def test(values: Callable[[PlantedScores], Mapping[str, float]]) -> Paired | None:
        before, after = (list(values(scores).values()) for scores in (base, trained))
        return paired(after, before, config.seed, config.evaluate.resamples) if len(before) > 1 else None

    return PlantedPair(
        base=base.figures,
        trained=trained.figures,
        above=test(lambda scores: {q: float(count > 0) for q, count in scores.above.items()}),
        with_planted=test(lambda scores: scores.with_planted),
    )


def _keep_planted(workspace: Workspace, found: Mapping[str, Mapping[str, PlantedScores]]) -> None:
    """Write a row per query and violation, with violation "" for all planted passages together."""
    keys = [(q, violation) for violation, scores in found[_BEFORE].items() for q in scores.above]
    columns: dict[str, list[object]] = {"query_id": [q for q, _ in keys], "violation": [v for _, v in keys]}
    for of, scores in found.items():
        columns[f"{of}_above"] = [scores[v].above[q] for q, v in keys]
        columns[f"{of}_without"] = [scores[v].without[q] for q, v in keys]
        columns[f"{of}_with_planted"] = [scores[v].with_planted[q] for q, v in keys]
    workspace.write_table("runs/planted.parquet", pa.table(columns))


_PLANTED_HEADER = ["planted", "queries", "passages", "measure", *CHANGE]


def planted_rows(probe: PlantedProbe) -> list[list[str]]:
    """Return the rows of the table: all planted passages, then those of each violation alone."""
    rows = []
    for violation, pair in {_ALL: probe.overall, **probe.by_violation}.items():
        start = [violation, f"{pair.base.queries:,}", f"{pair.base.planted:,}"]
        shown: list[tuple[str, str, Paired | None]] = [
            ("share with one above", "above_share", pair.above),
            ("mean number above", "above_mean", None),
            (f"{probe.measure} without", "without", None),
            (f"{probe.measure} with", "with_planted", pair.with_planted),
        ]
        for title, name, tested in shown:
            before, after = getattr(pair.base, name), getattr(pair.trained, name)
            p = tested.p_randomisation if tested else 1.0
            rows.append([*start, title, *_change_cells(before, after, tested, p)])
    return rows


def planted_section(probe: PlantedProbe | None) -> list[Markup]:
    """Return the page's section on planted counterfactuals; none where none were planted."""
    if probe is None:
        return []
    base, trained = probe.overall.base, probe.overall.trained
    shares = [f"{f.above_share:.3f} ({f.above_low:.3f} to {f.above_high:.3f})" for f in (base, trained)]
    summary = (
        f"The accepted negatives of {base.queries:,} queries that were not trained on are added to the corpus: "
        f"{base.planted:,} passages. Share of these queries with at least one of their own negatives above their best "
        f"positive, with its 95 % interval: {shares[0]} before, {shares[1]} after."
    )
    note = (
        "Ties count as above. Queries that training held out also chose its best checkpoint, by retrieval without "
        "planted passages. p is the randomisation test's, not corrected."
    )
    shown = table(_PLANTED_HEADER, planted_rows(probe), note)
    return [Markup("<h2>Planted counterfactuals</h2>{}{}").format(paragraph(summary), shown)]


# Both


def probe_details(contrast: Mapping[str, ContrastProbe], planted: PlantedProbe | None) -> dict[str, Any]:
    """Return what a manifest holds of both: nothing of what there was not."""
    found: dict[str, Any] = {"contrast": {name: probe.model_dump() for name, probe in contrast.items()}}
    found["planted"] = planted and planted.model_dump()
    return {name: value for name, value in found.items() if value}


def print_probes(report: Reporter, details: Mapping[str, Any]) -> None:
    """Print the tables of what `probe_details` gave."""
    for name, probe in details.get("contrast", {}).items():
        report.table(f"Contrast set {name}", _CONTRAST_HEADER, contrast_rows(ContrastProbe.model_validate(probe)))
    if "planted" in details:
        only_all = PlantedProbe.model_validate(details["planted"]).model_copy(update={"by_violation": {}})
        report.table("Planted counterfactuals", _PLANTED_HEADER, planted_rows(only_all))
