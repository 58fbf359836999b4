"""Which mined passages were found to answer their query, by relabel or by an analysis of generate."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.records import Answering, FalseNegative, Relabelled, arrow_schema
from causalneg.stages import Stage
from causalneg.workspace import Workspace


def verdict_stages(workspace: Workspace, among: Sequence[Stage] = ("relabel", "generate")) -> list[Stage]:
    """Return the finished stages whose verdicts hold: those that found a false negative in the data that is there.

    What the texts say does not change when mine is run anew, so that its result may be another one than they read.
    """
    imported = workspace.manifest("import")
    return [
        stage
        for stage in among
        if imported
        and (manifest := workspace.manifest(stage))
        and imported.is_known_as(manifest.inputs.get("import", ""))
        and any(batch.num_rows for batch in false_negatives(workspace, [stage]))
    ]


def false_negatives(workspace: Workspace, stages: Sequence[Stage]) -> Iterator[pa.RecordBatch]:
    """Stream the `FalseNegative` rows of some stages; one that both found comes twice."""
    if "relabel" in stages:
        yield from map(_rejected, workspace.read_batches("relabelled", Relabelled))
    if "generate" in stages:
        yield from workspace.read_batches("answering", FalseNegative)


def _rejected(batch: pa.RecordBatch) -> pa.RecordBatch:
    found = batch.filter(pc.equal(batch.column("verdict"), "rejected"))
    whole = pc.equal(found.column("answering"), Answering.ANSWERS.value)
    columns = [found.column("query_id"), found.column("passage_id"), whole]
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema(FalseNegative))
