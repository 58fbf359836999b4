"""Reads what training needs from the workspace."""

from causalneg.config import TrainSettings
from causalneg.examples import Selection, read_selection, read_texts
from causalneg.training.batch import TrainingRow, with_texts
from causalneg.workspace import Workspace


def select(workspace: Workspace, settings: TrainSettings) -> Selection:
    """Choose the rows to train on; generated negatives are not looked at when none are asked for."""
    return read_selection(workspace, settings.mined_per_query, settings.generated_per_query)


def read_rows(workspace: Workspace, selection: Selection) -> list[TrainingRow]:
    """Read the texts of the selected rows.

    Raises:
        UserError: a text is not there.
    """
    return with_texts(selection.rows, read_texts(workspace, selection.rows))
