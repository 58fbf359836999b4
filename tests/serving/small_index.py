"""A workspace with a handful of passages, indexed, for the tests of the server."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from causalneg.config import IndexSettings
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.indexing.build import build_version
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.manifest import IndexModel
from causalneg.models import resolve
from causalneg.records import Passage, Qrel, Query, metadata_text, to_table
from causalneg.workspace import Counts, Workspace

_CITY, _BODY = metadata_text({"kind": "city"}), metadata_text({"kind": "body"})
PASSAGES = [
    Passage(id="rome", title="Rome", text="Rome is the capital of Italy.", metadata=_CITY),
    Passage(id="paris", title="Paris", text="Paris is the capital of France.", metadata=_CITY),
    Passage(id="moon", text="The Moon orbits the Earth in about 27 days.", metadata=_BODY),
    Passage(id="mars", title="Mars", text="Mars is the fourth planet from the Sun."),
]
QUESTIONS = {
    "What is the capital of Italy?": "rome",
    "How long does the Moon take around the Earth?": "moon",
    "fourth planet": "mars",
    "Which city is the capital of France?": "paris",
}


def build(workspace: Workspace, name: str, passages: Sequence[Passage] = PASSAGES, **settings: object) -> None:
    """Index passages as a version, with the embedded encoder."""
    model = resolve("embedded:minilm-l6")
    vectors = encode(load_encoder(model), [passage.full_text for passage in passages], "passage")
    build_version(
        workspace.local_folder(f"index/{name}"),
        IndexModel(name=model.name, fingerprint=model.fingerprint),
        lambda: [np.asarray(vectors, np.float32)],
        to_table(Passage, list(passages)).to_batches(),
        IndexSettings(**{"kind": "flat", **settings}),  # type: ignore[arg-type]
        rows=len(passages),
        report=Reporter(io.StringIO()),
    )


def small_workspace(folder: Path, **settings: object) -> Workspace:
    """Make a workspace whose version `v1` answers."""
    workspace = Workspace(str(folder))
    stage = workspace.begin("import", {}, [])
    stage.workspace.write_rows("corpus", "000000", Passage, PASSAGES)
    stage.workspace.write_rows("queries", "000000", Query, [Query(id="q", text="capital of Italy")])
    stage.workspace.write_rows("qrels", "000000", Qrel, [Qrel(query_id="q", passage_id="rome")])
    stage.finish(Counts(rows_in=4, accepted=4))
    build(workspace, "v1", **settings)
    Catalog(workspace.local_folder("index")).activate("v1")
    return workspace
