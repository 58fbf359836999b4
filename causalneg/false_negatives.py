"""Which mined passages were found to answer their query, by relabel or by an analysis of generate."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from causalneg.records import Analysis, Answering, Record, Relabelled, arrow_schema
from causalneg.workspace import Stage, Workspace

# The stages that judge mined passages, and where they say so.
JUDGING: dict[Stage, tuple[str, type[Relabelled | Analysis]]] = {
    "relabel": ("relabelled", Relabelled),
    "generate": ("analyses", Analysis),
}


class FalseNegative(Record):
    """A mined passage that is no negative of its query; `whole` where it answers it as a whole."""

    query_id: str
    passage_id: str
    whole: bool


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
        and manifest.inputs.get("import") == imported.digest
        and any(batch.num_rows for batch in false_negatives(workspace, [stage]))
    ]


def false_negatives(workspace: Workspace, stages: Sequence[Stage]) -> Iterator[pa.RecordBatch]:
    """Stream the `FalseNegative` rows of some stages; one that both found comes twice."""
    for stage in stages:
        folder, record = JUDGING[stage]
        for batch in workspace.read_batches(folder, record):
            yield _of_analyses(batch) if record is Analysis else _of_verdicts(batch)


def _of_verdicts(batch: pa.RecordBatch) -> pa.RecordBatch:
    found = batch.filter(pc.equal(batch.column("verdict"), "rejected"))
    whole = pc.equal(found.column("answering"), Answering.ANSWERS.value)
    return _rows(found.column("query_id"), found.column("passage_id"), whole)


def _of_analyses(batch: pa.RecordBatch) -> pa.RecordBatch:
    answering = batch.column("answering")
    passages = pc.list_flatten(answering)
    queries = batch.column("query_id").take(pc.list_parent_indices(answering))
    return _rows(queries, passages, pa.repeat(True, len(passages)))


def _rows(queries: pa.Array, passages: pa.Array, whole: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([queries, passages, whole], schema=arrow_schema(FalseNegative))
