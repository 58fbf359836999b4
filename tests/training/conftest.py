"""A tiny workspace with imported, mined and generated rows."""

from pathlib import Path

import pytest
import torch
from row_samples import mined, negative

from causalneg.records import Mined, Negative, Passage, Qrel, Query
from causalneg.workspace import Counts, Workspace

PAIRS = 7
_TOPICS = ["rivers", "kings", "engines", "birds", "operas", "bridges", "comets"]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, which crawl when other work holds the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace of seven train pairs; the last has no negatives, one a single, one only mined ones."""
    made = Workspace(str(tmp_path / "workspace"))
    stage = made.begin("import", {"import": {"source": "topics"}}, [])
    passages = [
        Passage(id=f"p{i}", title=topic, text=f"A passage on {topic}, " + f"with detail {i} of it " * (i + 1))
        for i, topic in enumerate(_TOPICS)
    ]
    stage.workspace.write_rows("corpus", "part-0", Passage, passages)
    stage.workspace.write_rows(
        "queries", "part-0", Query, [Query(id=f"q{i}", text=f"What of {t}?") for i, t in enumerate(_TOPICS)]
    )
    stage.workspace.write_rows(
        "qrels",
        "part-0",
        Qrel,
        [
            *(Qrel(query_id=f"q{i}", passage_id=f"p{i}") for i in range(PAIRS)),
            Qrel(query_id="q0", passage_id="p1", score=0),
            Qrel(query_id="q0", passage_id="p0", split="test"),
        ],
    )
    stage.finish(Counts(rows_in=PAIRS, accepted=PAIRS))

    stage = made.begin("mine", {}, ["import"])
    candidates = [mined(f"q{i}", f"p{(i + k) % PAIRS}") for i in range(PAIRS - 1) for k in (1, 2, 3)]
    stage.workspace.write_rows("mined", "part-0", Mined, [*candidates, mined("q6", "p1", "rejected")])
    stage.finish(Counts(rows_in=PAIRS, accepted=PAIRS))
    return made


@pytest.fixture
def generated_workspace(workspace: Workspace) -> Workspace:
    """The same workspace after generate: pairs 0 to 3 have two generated negatives, pair 4 has one."""
    stage = workspace.begin("generate", {}, ["import", "mine"])
    rows = [
        negative(f"q{i}", f"p{i}", f"A passage on {_TOPICS[i]}, changed in way {k} of three.")
        for i in range(5)
        for k in range(1 if i == 4 else 2)
    ]
    rows.append(negative("q0", "p0", "A rejected one.", "rejected"))
    stage.workspace.write_rows("negatives", "part-0", Negative, rows)
    stage.finish(Counts(rows_in=PAIRS, accepted=PAIRS))
    return workspace
