"""Scores candidates anew with a cross-encoder, which reads query and passage together."""

from functools import partial

import pyarrow as pa

from causalneg.config import EncodeSettings
from causalneg.console import Reporter
from causalneg.embedding import load_cross_encoder
from causalneg.models import ResolvedModel
from causalneg.records import Query
from causalneg.runtime import cores, spread
from causalneg.workspace import Workspace


class _Rescorer:
    """Fills `cross_score` of files of candidates."""

    def __init__(self, root: str, folder: str, model: ResolvedModel, batch_size: int) -> None:
        import torch

        torch.set_num_threads(cores())
        self._workspace, self._folder, self._batch_size = Workspace(root), folder, batch_size
        self._encoder = load_cross_encoder(model)

    def __call__(self, part: str) -> int:
        table = self._workspace.read_table(part)
        query_ids, passage_ids = table.column("query_id").to_pylist(), table.column("passage_id").to_pylist()
        wanted = set(query_ids)
        queries = {q.id: q.text for q in self._workspace.read_rows("queries", Query) if q.id in wanted}
        passages = self._workspace.passages(set(passage_ids))
        texts = [(queries[q], passages[p].full_text) for q, p in zip(query_ids, passage_ids, strict=True)]
        scores = self._encoder.predict(texts, batch_size=self._batch_size, show_progress_bar=False)
        column = pa.array(scores.astype("float64"))
        table = table.set_column(table.schema.get_field_index("cross_score"), "cross_score", column)
        self._workspace.write_table(rescored_name(part, self._folder), table)
        return table.num_rows


def rescored_name(part: str, folder: str) -> str:
    """Return where the rescored rows of a file of candidates are kept."""
    return f"{folder}/{part.rsplit('/', 1)[1]}"


def rescore(
    workspace: Workspace, parts: list[str], model: ResolvedModel, settings: EncodeSettings, report: Reporter
) -> list[str]:
    """Score files of candidates with a cross-encoder; files that are scored already are left alone.

    Args:
        workspace: holds the files and gets the new ones.
        parts: files of `Candidate` rows.
        model: a sentence-transformers CrossEncoder with one output.
        settings: batch size, workers and GPUs.
        report: shows the progress.

    Returns:
        Files of the same rows with `cross_score`.
    """
    folder = f"{parts[0].rsplit('/', 1)[0]}-{model.fingerprint}"
    missing = [p for p in parts if not workspace.exists(rescored_name(p, folder))]
    if missing:
        rows = [workspace.read_table(p, ["query_id"]).num_rows for p in missing]
        make = partial(_Rescorer, workspace.root_url, folder, model, settings.batch_size)
        with report.meter("rescoring", sum(rows), "pairs") as meter:
            for done in spread(make, missing, settings.workers, settings.gpus):
                meter.advance(done)
    return [rescored_name(p, folder) for p in parts]
