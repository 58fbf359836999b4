"""`causalneg export`: train pairs with their negatives, as another tool reads them."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from causalneg import __version__
from causalneg.config import Config, ExportSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.examples import RowIds, Selection, read_selection
from causalneg.false_negatives import verdict_stages
from causalneg.records import Source
from causalneg.sources.export import chat, flagembedding, parquet, sentence_transformers, tevatron, triplets
from causalneg.sources.export.format import FileType, Format
from causalneg.sources.export.output import ExportManifest, Output, file_name
from causalneg.sources.export.rows import read_examples
from causalneg.sources.export.width import fit, size
from causalneg.workspace import Counts, Stage, Workspace

FORMATS: dict[str, Format] = {
    "sentence-transformers": sentence_transformers.FORMAT,
    "triplets": triplets.FORMAT,
    "tevatron": tevatron.FORMAT,
    "flagembedding": flagembedding.FORMAT,
    "chat": chat.FORMAT,
    "parquet": parquet.FORMAT,
}


def _file_type(settings: ExportSettings) -> FileType:
    layout = FORMATS[settings.format]
    if settings.scores and not layout.takes_scores:
        raise UserError(f"The format {settings.format} has no place for scores; leave --scores out.")
    if settings.file_type and settings.file_type not in layout.file_types:
        raise UserError(f"The format {settings.format} is written as {layout.file_types[0]}; leave --file-type out.")
    return settings.file_type or layout.file_types[0]


def _inputs(settings: ExportSettings, workspace: Workspace) -> dict[str, str]:
    stages: list[Stage] = ["import"]
    stages += ["mine"] if settings.mined_per_query else []
    if settings.mined_per_query and settings.false_negatives != "keep":
        stages += verdict_stages(workspace)
    if settings.generated_per_query and "generate" not in stages and workspace.manifest("generate"):
        stages += ["generate"]
    return {stage: workspace.require(stage).digest for stage in stages}


def _chosen(selection: Selection, settings: ExportSettings, workspace: Workspace) -> list[RowIds]:
    if not selection.rows:
        raise UserError(
            f"None of the {selection.pairs} train pairs of {workspace.root_url} has an accepted negative; "
            "look at the thresholds of mine and generate."
        )
    rows = fit(selection.rows, settings.max_negatives, FORMATS[settings.format].same_width)
    if not rows:
        most = max(size(row) for row in selection.rows)
        raise UserError(f"No train pair has {settings.max_negatives} negatives; set --max-negatives to {most} or less.")
    return rows


@dataclass
class _Written:
    """What was written: pairs, rows of the file, and negatives by source."""

    pairs: int = 0
    rows: int = 0
    negatives: Counter[str] = field(default_factory=lambda: Counter({source.value: 0 for source in Source}))


def _write(
    chosen: list[RowIds], settings: ExportSettings, file: str, output: Output, workspace: Workspace, report: Reporter
) -> _Written:
    """Write pairs to a file of the output; those that lack a score that is asked for are left out."""
    layout, scored, written = FORMATS[settings.format], settings.scores is not None, _Written()
    schema = None
    if file.endswith(".parquet") and layout.schema:
        schema = layout.schema(max(size(row) for row in chosen), scored)
    with output.file(file, schema) as writer, report.meter("exporting", len(chosen), "pairs") as meter:
        for examples in read_examples(workspace, chosen, scored or layout.shows_scores):
            rows: list[dict[str, Any]] = []
            for example in examples:
                scores = example.scores(settings.scores) if settings.scores else None
                if scored and scores is None:
                    continue
                rows += layout.rows(example, scores)
                written.pairs += 1
                written.negatives.update(d.source.value for d in example.negatives if d.source)
            writer.write(rows)
            meter.advance(len(examples))
        written.rows = writer.rows
    if not written.pairs:
        raise UserError(
            f"No train pair has the {settings.scores} score of its positive and of all its negatives; "
            "leave --scores out, or set --generated-per-query to 0."
        )
    return written


def run(config: Config, workspace: Workspace, report: Reporter) -> ExportManifest:
    """Write the train pairs that have negatives in a format of another tool.

    Raises:
        UserError: import or mine is not done, there is nothing to write, or the output cannot be written.
    """
    settings, output = config.export, Output(config.export.output)
    file = file_name(_file_type(settings))
    output.check()
    inputs = _inputs(settings, workspace)
    if settings.generated_per_query and "generate" not in inputs:
        report.line("export: mined negatives only, since generate is not done", style="yellow")
        settings = settings.model_copy(update={"generated_per_query": 0})
    selection = read_selection(
        workspace, settings.mined_per_query, settings.generated_per_query, settings.false_negatives
    )
    chosen = _chosen(selection, settings, workspace)
    try:
        written = _write(chosen, settings, file, output, workspace, report)
        left_out = {
            "without_negatives": selection.pairs - len(selection.rows),
            "too_few_negatives": len(selection.rows) - len(chosen),
            "without_score": len(chosen) - written.pairs,
        }
        manifest = ExportManifest(
            version=__version__,
            workspace=workspace.root_url,
            settings=settings.model_dump(mode="json"),
            inputs=inputs,
            counts=Counts(rows_in=selection.pairs, accepted=written.pairs, rejected=sum(left_out.values())),
            left_out=left_out,
            rows=written.rows,
            negatives=dict(written.negatives),
            false_negatives={"left_out": selection.left_out, "promoted": selection.promoted},
            finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            files={file: output.entry(file)},
        )
        output.finish(manifest)
    finally:
        output.discard()
    _summarise(manifest, f"{output.url}/{file}", report)
    return manifest


def _summarise(manifest: ExportManifest, target: str, report: Reporter) -> None:
    counts, negatives = manifest.counts, manifest.negatives
    report.line(
        f"export: {counts.accepted:,} of {counts.rows_in:,} train pairs with {negatives['mined']:,} mined and "
        f"{negatives['generated']:,} generated negatives; {manifest.rows:,} rows in {target}"
    )
    if false := manifest.false_negatives["left_out"]:
        promoted = manifest.false_negatives["promoted"]
        said = f", {promoted:,} of them are positives of further pairs" if promoted else ""
        report.line(f"export: {false:,} mined passages are no negatives, since they answer their query{said}")
    if left_out := [f"{n:,} {reason.replace('_', ' ')}" for reason, n in manifest.left_out.items() if n]:
        report.line(f"export: pairs left out: {', '.join(left_out)}", style="yellow")
