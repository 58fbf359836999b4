"""A retrieval task of MTEB made of a workspace's corpus, queries and judgements."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from causalneg.errors import UserError
from causalneg.evaluation.judged import read_judged
from causalneg.records import Passage, full_text
from causalneg.workspace import Workspace

_TEXTS = pa.schema({"id": pa.string(), "text": pa.string()})
_SPLITS = ("test", "dev")  # the one evaluated where none is named


def _split(workspace: Workspace, wanted: str | None) -> str:
    """Return the split to evaluate.

    Raises:
        UserError: there is none of that name; it names those that there are.
    """
    there = set(workspace.column("qrels", "split").unique().to_pylist())
    for split in _SPLITS if wanted is None else (wanted,):
        if split in there:
            return split
    named = f"the split {wanted!r}" if wanted else "a split test or dev"
    raise UserError(
        f"mteb.split: the data of {workspace.root_url} has no judgements for {named}; "
        f"there are: {', '.join(sorted(there)) or 'none'}."
    )


def _passages(workspace: Workspace) -> Iterator[pa.RecordBatch]:
    for batch in workspace.read_batches("corpus", Passage):
        titles, texts = batch.column("title").to_pylist(), batch.column("text").to_pylist()
        joined = pa.array(map(full_text, titles, texts), pa.string())
        yield pa.RecordBatch.from_arrays([batch.column("id"), joined], schema=_TEXTS)


def _corpus(workspace: Workspace, file: Path) -> Dataset:
    """Write the passages' texts to a file that MTEB reads mapped into memory: the corpus may be larger than that."""
    with pa.ipc.new_stream(file, _TEXTS) as writer:
        for batch in _passages(workspace):
            writer.write_batch(batch)
    return Dataset.from_file(str(file))


def workspace_task(name: str, workspace: Workspace, wanted: str | None) -> AbsTaskRetrieval:
    """Return a task made of what was imported into a workspace.

    Title and text are joined as everywhere else here, and queries without a positive in the corpus are left out, so
    its figures are those of `causalneg evaluate`. Its revision is the hash of the import.

    Args:
        name: of the task.
        workspace: has a finished import.
        wanted: split; unset, `test`, or `dev` where there is no `test`.

    Raises:
        UserError: there is no import, or it has no such split.
    """
    imported = workspace.require("import")
    revision = imported.former_digest or imported.digest  # so that results of 0.1.0 are found
    split = _split(workspace, wanted)

    class WorkspaceTask(AbsTaskRetrieval):
        metadata = TaskMetadata(
            dataset={"path": workspace.root_url, "revision": revision},
            name=name,
            description=f"Queries of the split {split} imported into {workspace.root_url}",
            type="Retrieval",
            eval_splits=[split],
            eval_langs=["und-Zyyy"],  # any language
            main_score="ndcg_at_10",
        )
        data_loaded = False

        def load_data(self, num_proc: int | None = None, **others: Any) -> None:
            if self.data_loaded:
                return
            judged = read_judged(workspace, split, workspace.column("corpus", "id"), "mteb.split")
            self._folder = tempfile.TemporaryDirectory(prefix="causalneg-mteb-")
            parts = {
                "corpus": _corpus(workspace, Path(self._folder.name) / "corpus.arrow"),
                "queries": Dataset.from_dict({"id": list(judged.texts), "text": list(judged.texts.values())}),
                "relevant_docs": {
                    q: {p: max(0, score) for p, score in scores.items()} for q, scores in judged.qrels.items()
                },
                "top_ranked": None,
            }
            self.dataset = {"default": {split: parts}}
            self.data_loaded = True

    return WorkspaceTask()
