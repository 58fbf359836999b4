"""Reads what training needs from the workspace."""

from causalneg.config import TrainSettings
from causalneg.records import Mined, Negative, Qrel, Query
from causalneg.training.batch import Selection, TrainingRow, passage_ids, select_rows, with_texts
from causalneg.workspace import Workspace


def read_selection(workspace: Workspace, settings: TrainSettings) -> Selection:
    """Choose the rows to train on; generated negatives are not looked at when none are asked for."""
    generated = settings.generated_per_query > 0
    return select_rows(
        workspace.read_rows("qrels", Qrel),
        workspace.read_rows("mined", Mined),
        workspace.read_rows("negatives", Negative) if generated else (),
        settings.mined_per_query,
        settings.generated_per_query,
    )


def read_rows(workspace: Workspace, selection: Selection) -> list[TrainingRow]:
    """Read the texts of the selected rows.

    Raises:
        UserError: a text is not there.
    """
    wanted = {row.query_id for row in selection.rows}
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query) if q.id in wanted}
    return with_texts(selection, queries, workspace.passages(passage_ids(selection)))
