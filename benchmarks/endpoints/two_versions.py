"""A workspace whose corpus is indexed twice, under ids that differ, so that an answer that mixes versions is seen."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg.config import IndexSettings, load_config
from causalneg.console import Reporter
from causalneg.indexing.build import build_version
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.manifest import IndexModel
from causalneg.models import resolve
from causalneg.records import Passage, Query
from causalneg.serving import keys
from causalneg.sources import run as importing
from causalneg.vectors import embed_corpus
from causalneg.workspace import Workspace

FIRST, SECOND = "first", "second"
_MARK = "-of-the-second"  # at the end of each id of the second


def _renamed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        at = batch.schema.get_field_index("id")
        marked = pc.binary_join_element_wise(batch.column(at), pa.scalar(_MARK), "")
        yield batch.set_column(at, "id", marked)


def make_workspace(folder: Path, kind: str = "flat") -> None:
    """Import the embedded sample, index it twice, and write `queries.txt`, `keys.json` and a write key in `key.txt`."""
    report = Reporter(open("/dev/null", "w"))  # noqa: SIM115, PTH123 - as long as the process
    config = load_config(flags={"workspace": str(folder)})
    workspace = Workspace(str(folder))
    importing.run(config, workspace, report)
    model = resolve(config.encoder)
    vectors = embed_corpus(workspace, model, config.encode, report)
    catalog = Catalog(workspace.local_folder("index"))
    for name in (SECOND, FIRST):
        batches = workspace.read_batches("corpus", Passage)
        build_version(
            catalog.folder / name,
            IndexModel(name=model.name, fingerprint=model.fingerprint),
            lambda: (np.asarray(block, np.float32) for block in vectors),
            batches if name == FIRST else _renamed(batches),
            IndexSettings(kind=kind),
            rows=len(vectors),
            report=report,
        )
    catalog.activate(FIRST)
    (folder / "queries.txt").write_text("\n".join(q.text for q in workspace.read_rows("queries", Query)))
    (folder / "key.txt").write_text(keys.add(folder / "keys.json", "faults", "write"))


def mixed(body: bytes) -> bool:
    """Whether an answer holds ids of another version than it says, or of none."""
    answer = json.loads(body)
    ids = [hit["id"] for hits in answer["results"] for hit in hits]
    second = answer["index_version"] == SECOND
    return not ids or any(name.endswith(_MARK) != second for name in ids)
