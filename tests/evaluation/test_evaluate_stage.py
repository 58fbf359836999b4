"""The stage `evaluate`, from a workspace to its files."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.evaluation.report import Change, TopHit, page, trec_lines
from causalneg.evaluation.run import run
from causalneg.models import resolve
from causalneg.records import Passage, Qrel, Query
from causalneg.runtime import ray_session
from causalneg.workspace import Counts, Workspace

PASSAGES = [
    Passage(id="rome", title="Rome", text="Rome is the capital of Italy."),
    Passage(id="paris", title="Paris", text="Paris is the capital of France."),
    Passage(id="moon", text="The Moon orbits the Earth in about 27 days."),
    Passage(id="bread", text="Bread is baked from flour, water & yeast."),
]
QUERIES = {
    "q1": ("What is the capital of <b>Italy</b>?", "rome"),
    "q2": ("How long does the Moon take around the Earth?", "moon"),
    "q3": ("What is bread made of?", "bread"),
    "q4": ("Which city is the capital of France?", "paris"),
    "q5": ("Who wrote Hamlet?", "not in the corpus"),
}


@pytest.fixture
def report() -> Reporter:
    return Reporter(io.StringIO())


def _workspace(root: Path) -> Workspace:
    workspace = Workspace(str(root))
    stage = workspace.begin("import", {}, [])
    workspace.write_rows("corpus", "000000", Passage, PASSAGES[:3])
    workspace.write_rows("corpus", "000001", Passage, PASSAGES[3:])
    workspace.write_rows("queries", "000000", Query, [Query(id=i, text=t) for i, (t, _) in QUERIES.items()])
    qrels = [Qrel(query_id=i, passage_id=p, split="test") for i, (_, p) in QUERIES.items()]
    qrels.append(Qrel(query_id="q1", passage_id="paris", score=0, split="dev"))
    workspace.write_rows("qrels", "000000", Qrel, qrels)
    stage.finish(Counts(rows_in=4, accepted=4))
    return workspace


def _train_badly(workspace: Workspace) -> None:
    """Finish a training that lost the vectors of all words: what is left of a text is its length."""
    stage = workspace.begin("train", {}, ["import"])
    folder = workspace.local_folder("model")
    shutil.copytree(resolve("embedded:minilm-l6").path, folder)
    weights = load_file(folder / "model.safetensors")
    (name,) = (n for n in weights if n.endswith("word_embeddings.weight"))
    weights[name].zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stage.finish(Counts(rows_in=1, accepted=1))


@pytest.mark.ray
def test_base_and_trained_are_compared(tmp_path: Path, report: Reporter) -> None:
    workspace = _workspace(tmp_path / "ws")
    _train_badly(workspace)
    config = load_config(flags={"workspace": workspace.root_url, "evaluate.measures": ["RR@10", "R@2"]})
    with ray_session():  # one for both encoders
        manifest = run(config, workspace, report)

    assert manifest.counts == Counts(rows_in=5, accepted=4, rejected=1)
    base, trained = manifest.details["base"], manifest.details["trained"]
    assert base == {"RR@10": 1.0, "R@2": 1.0}
    assert trained["RR@10"] < 1.0
    metrics = json.loads(workspace.read_bytes("runs/metrics.json"))
    assert metrics == {"split": "test", "queries": 4, "passages": 4, "base": base, "trained": trained}

    for name in ("base", "trained"):
        lines = [line.split() for line in workspace.read_bytes(f"runs/{name}.trec").decode().splitlines()]
        assert [(line[0], line[3]) for line in lines] == [
            (f"q{query}", str(rank)) for query in (1, 2, 3, 4) for rank in (1, 2, 3, 4)
        ]
        first = [line[2] == QUERIES[line[0]][1] for line in lines if line[3] == "1"]
        assert all(first) == (name == "base")
        ranks = [1 / int(line[3]) for line in lines if line[2] == QUERIES[line[0]][1]]
        assert sum(ranks) / 4 == pytest.approx(manifest.details[name]["RR@10"])

    text = workspace.read_bytes("report/index.html").decode()
    assert "No query improved." in text
    assert "<b>Italy" not in text
    assert not re.search(r"(src|href)=|https?://|<script", text)

    said = report.console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 of 5 queries left out" in said
    assert re.search(r"RR@10 .* 1\.0000", said)
    assert run(config, workspace, report) == manifest
    assert sorted(manifest.files) == [
        "report/index.html",
        "runs/base.trec",
        "runs/metrics.json",
        "runs/trained.trec",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"evaluate.split": "tset"}, r"'tset'; there are: dev, test\."),
        ({"evaluate.measures": ["nDCG"], "evaluate.split": ""}, "there are: dev, test"),
        ({"evaluate.measures": ["nope@10"]}, "'nope@10' is not known"),
        ({"evaluate.depth": 50}, "R@100 looks at 100 hits.*raise the depth"),
        ({}, "run `causalneg train` first"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, report: Reporter, flags: dict[str, object], message: str) -> None:
    workspace = _workspace(tmp_path / "ws")
    with pytest.raises(UserError, match=message):
        run(load_config(flags=flags), workspace, report)


def test_nothing_in_a_text_becomes_markup() -> None:
    evil = '<script>alert("&")</script>'
    change = Change(evil, 0.0, 1.0, TopHit(evil, False), TopHit("x" * 1000, True))
    text = page(evil, [[evil, "0", "1", "+1"]], evil, [change], [change])
    assert "<script" not in text
    assert "x" * 301 not in text


def test_ids_with_white_space_stay_one_field_of_a_trec_line() -> None:
    text = trec_lines({"q 1": {"p\n1": 0.25, "p2": 0.5}}, "base")
    assert [line.split() for line in text.splitlines()] == [
        ["q%201", "Q0", "p2", "1", "0.5", "base"],
        ["q%201", "Q0", "p%0A1", "2", "0.25", "base"],
    ]
