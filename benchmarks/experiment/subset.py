"""A workspace with the data of another, and some of its train pairs."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from causalneg.files import link_files
from causalneg.records import Qrel
from causalneg.workspace import Counts, Workspace


def with_train_pairs(
    base: Workspace, folder: Path, chosen: Set[tuple[str, str]], determines: Mapping[str, Any]
) -> Workspace:
    """Make a workspace as if it had been imported so: other train pairs are of the split `train_other`.

    Args:
        base: imported.
        folder: where it is made; what is there already is left alone.
        chosen: ids of query and positive.
        determines: by which it is told whether it is there already.
    """
    workspace = Workspace(str(folder))
    stage = workspace.begin("import", {**determines, "chosen": sorted(chosen)}, [])
    if stage.done:
        return workspace
    for name in ("corpus", "queries"):
        link_files(base.local_folder(name), stage.workspace.local_folder(name))
    qrels = [
        q.model_copy(update={"split": "train_other"})
        if q.split == "train" and (q.query_id, q.passage_id) not in chosen
        else q
        for q in base.read_rows("qrels", Qrel)
    ]
    stage.workspace.write_rows("qrels", "part-00000", Qrel, qrels)
    stage.finish(Counts(rows_in=len(qrels), accepted=len(qrels)))
    return workspace
