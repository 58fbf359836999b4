"""The stage `evaluate`: the trained encoder against the one that training started from."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from causalneg.config import Config, EncoderSettings
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.evaluation.changes import find_changes
from causalneg.evaluation.contrast import ContrastPair
from causalneg.evaluation.differences import BEFORE_AFTER, Difference, before_after, differences
from causalneg.evaluation.judged import Judged, read_judged
from causalneg.evaluation.metrics import Run, Scores, compute, parse_measures
from causalneg.evaluation.planted import PlantedScores
from causalneg.evaluation.probes import (
    contrast_digests,
    contrast_scores,
    contrast_section,
    planted_scores,
    planted_section,
    print_probes,
    probe_contrast,
    probe_details,
    probe_planted,
    queries_to_plant,
    read_contrast,
)
from causalneg.evaluation.report import changes, curve, page, paragraph, table
from causalneg.evaluation.search import exact_search
from causalneg.evaluation.trec import run_lines
from causalneg.models import ResolvedModel, resolve
from causalneg.runtime import cluster_session
from causalneg.starting import starting
from causalneg.vectors import embed_corpus
from causalneg.workspace import Counts, Manifest, Stage, Workspace

PAGE = "report/index.html"
_NOTE = (
    "Differences with their 95 % bootstrap interval; p of the paired randomisation test, two-sided, after Holm over "
    "the measures; wins, ties and losses are queries."
)


def _check_measures(config: Config) -> None:
    for name, measure in parse_measures(config.evaluate.measures).items():
        cutoff = measure.params.get("cutoff", 1)
        if cutoff > config.evaluate.depth:
            raise UserError(
                f"evaluate.measures: {name} looks at {cutoff} hits, but only evaluate.depth = "
                f"{config.evaluate.depth} are retrieved; raise the depth."
            )


def started_from(workspace: Workspace) -> ResolvedModel:
    """Return the encoder that training started from, as its manifest says, with what training put into it.

    Raises:
        UserError: there was no training, or the encoder is gone or another one by now.
    """
    made = workspace.require("train").config
    model = resolve(made["encoder"]["name"])
    if model.fingerprint != made["encoder"]["fingerprint"]:
        raise UserError(f"The encoder {model.name} is not the one any more that training started from; train again.")
    return starting(model, EncoderSettings.model_validate(made["train"]["encoder"]))


def retrieve(
    config: Config,
    workspace: Workspace,
    report: Reporter,
    model: ResolvedModel,
    queries: Mapping[str, str],
    passage_ids: pa.ChunkedArray,
) -> dict[str, dict[str, float]]:
    """Return the hits of each query under an encoder.

    Args:
        config: all settings.
        workspace: holds the corpus and its vectors.
        report: shows the progress.
        model: the encoder.
        queries: texts by id.
        passage_ids: of the corpus.
    """
    corpus = embed_corpus(workspace, model, config.encode, report)
    vectors = encode(load_encoder(model), list(queries.values()), "query", config.encode.batch_size)
    settings, workers = config.evaluate, config.encode.workers
    hits = exact_search(vectors, corpus, passage_ids, settings.depth, report, settings.shard_passages, workers)
    return dict(zip(queries, hits, strict=True))


def _write_runs(workspace: Workspace, runs: Mapping[str, Run], scores: Mapping[str, Scores]) -> None:
    """Write the runs, and every measure of every query."""
    for name, run in runs.items():
        workspace.write_bytes(f"runs/{name}.trec", run_lines(run, name).encode())
    parts = [(run, measure, values) for run, found in scores.items() for measure, values in found.per_query.items()]
    sizes = [len(values) for _, _, values in parts]
    columns = {
        "run": np.repeat([run for run, _, _ in parts], sizes),
        "query_id": [query for _, _, values in parts for query in values],
        "measure": np.repeat([measure for _, measure, _ in parts], sizes),
        "value": np.array([value for _, _, values in parts for value in values.values()], np.float64),
    }
    workspace.write_table("runs/queries.parquet", pa.table(columns))


def _sections(
    workspace: Workspace,
    judged: Judged,
    runs: Mapping[str, Run],
    scores: Mapping[str, Scores],
    found: list[Difference],
) -> list[Markup]:
    """Return what the page says of retrieval."""
    measure = next(iter(scores["base"].mean))
    values = {name: result.per_query[measure] for name, result in scores.items()}
    improved, worse = find_changes(workspace, judged, runs, values)
    return [
        table(BEFORE_AFTER, before_after(scores["base"].mean, scores["trained"].mean, found), _NOTE),
        curve(
            f"{measure} after minus before, query by query",
            [values["trained"][q] - v for q, v in values["base"].items()],
        ),
        changes(f"Most improved by {measure}", improved, "No query improved."),
        changes(f"Most worsened by {measure}", worse, "No query got worse."),
    ]


def _inputs(config: Config, workspace: Workspace) -> list[Stage]:
    """Return the stages whose results are read; negatives are planted where there are any."""
    negatives = config.evaluate.planted and workspace.manifest("generate") is not None
    return ["import", "generate", "train"] if negatives else ["import", "train"]


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Measure both encoders on the split; nothing is done when they were measured already.

    Raises:
        UserError: a setting is wrong, an earlier stage is missing, or the split has nothing to measure.
    """
    _check_measures(config)
    workspace.require("import")
    passage_ids = workspace.column("corpus", "id")
    judged = read_judged(workspace, config.evaluate.split, passage_ids, "evaluate.split")
    base = started_from(workspace)
    if base.name != config.encoder:
        report.line(f"evaluate: before is {base.name}, which training started from, and not {config.encoder}")
    determines = {
        "evaluate": config.evaluate.model_dump(mode="json", exclude={"shard_passages"}),
        "encoder": base.fingerprint,
        "precision": config.encode.precision,
        "seed": config.seed,
        "contrast": contrast_digests(config.evaluate),
    }
    sets: dict[str, list[ContrastPair]] = {}
    stage = workspace.begin(
        "evaluate",
        determines,
        _inputs(config, workspace),
        check=lambda: sets.update(read_contrast(config.evaluate)),
        say=report.line,
    )
    if stage.done:
        report.line("evaluate: already done")
        _print(report, config, stage.done)
        return stage.done
    models = {"base": base, "trained": resolve(str(workspace.local_folder("model")))}
    to_plant = queries_to_plant(workspace, passage_ids, report) if config.evaluate.planted else {}
    runs: dict[str, Run] = {}
    of_planted: dict[str, dict[str, PlantedScores]] = {}
    of_contrast: dict[str, dict[str, np.ndarray]] = {}
    with cluster_session():
        for name, model in models.items():  # all of one before the next, so that each is loaded once
            runs[name] = retrieve(config, workspace, report, model, judged.texts, passage_ids)
            if to_plant:
                of_planted[name] = planted_scores(workspace, config, model, to_plant, passage_ids, report)
            of_contrast[name] = contrast_scores(sets, model, config, report)
    planted = probe_planted(stage.workspace, config, of_planted) if to_plant else None
    contrast = probe_contrast(sets, stage.workspace, config, of_contrast)
    scores = {name: compute(config.evaluate.measures, judged.qrels, run) for name, run in runs.items()}
    found = differences(scores, config.seed, config.evaluate.resamples)
    results: dict[str, Any] = {
        "split": config.evaluate.split,
        "queries": len(judged.texts),
        "passages": len(passage_ids),
        **{name: result.mean for name, result in scores.items()},
        "differences": [difference.model_dump() for difference in found],
        **probe_details(contrast, planted),
    }
    summary = (
        f"{len(judged.texts):,} queries of the split “{config.evaluate.split}”, {len(passage_ids):,} passages. "
        f"Before: {base.name}. After: the same encoder, trained."
    )
    sections = [
        paragraph(summary),
        *_sections(workspace, judged, runs, scores, found),
        *contrast_section(contrast),
        *planted_section(planted),
    ]

    _write_runs(stage.workspace, runs, scores)
    stage.workspace.write_bytes("runs/metrics.json", json.dumps(results, indent=1).encode())
    stage.workspace.write_bytes(PAGE, page("Evaluation", sections).encode())
    counts = Counts(rows_in=len(judged.texts) + judged.left_out, accepted=len(judged.texts), rejected=judged.left_out)
    manifest = stage.finish(counts, details=results)
    _print(report, config, manifest)
    if judged.left_out:
        report.line(f"evaluate: {judged.left_out} of {counts.rows_in} queries left out: no positive in the corpus")
    report.line(f"evaluate: {workspace.path(PAGE)}")
    return manifest


def _print(report: Reporter, config: Config, manifest: Manifest) -> None:
    details = manifest.details
    title = f"{manifest.counts.accepted} queries of the split {config.evaluate.split!r}"
    found = [Difference.model_validate(difference) for difference in details["differences"]]
    report.table(title, BEFORE_AFTER, before_after(details["base"], details["trained"], found))
    print_probes(report, details)
