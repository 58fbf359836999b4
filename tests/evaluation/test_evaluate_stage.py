"""The stage `evaluate`, from a workspace to its files."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_samples import random_workspace, tiny_llama

from causalneg.config import EncoderSettings, TrainSettings, load_config
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.evaluation.changes import Change, TopHit
from causalneg.evaluation.differences import Difference
from causalneg.evaluation.report import changes, curve, page, paragraph, table
from causalneg.evaluation.run import run, started_from
from causalneg.models import resolve
from causalneg.records import Passage, Qrel, Query
from causalneg.runtime import ray_session
from causalneg.training.encoder.encoder import Encoder
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
    stage.workspace.write_rows("corpus", "000000", Passage, PASSAGES[:3])
    stage.workspace.write_rows("corpus", "000001", Passage, PASSAGES[3:])
    stage.workspace.write_rows("queries", "000000", Query, [Query(id=i, text=t) for i, (t, _) in QUERIES.items()])
    qrels = [Qrel(query_id=i, passage_id=p, split="test") for i, (_, p) in QUERIES.items()]
    qrels.append(Qrel(query_id="q1", passage_id="paris", score=0, split="dev"))
    stage.workspace.write_rows("qrels", "000000", Qrel, qrels)
    stage.finish(Counts(rows_in=4, accepted=4))
    return workspace


def _training(encoder: str, **settings: object) -> dict[str, object]:
    """Return what the manifest of a training says of its encoder."""
    started = {"name": encoder, "fingerprint": resolve(encoder).fingerprint}
    return {"encoder": started, "train": TrainSettings(encoder=EncoderSettings(**settings)).model_dump(mode="json")}


def _train_badly(workspace: Workspace) -> None:
    """Finish a training that lost the vectors of all words: what is left of a text is its length."""
    stage = workspace.begin("train", _training("embedded:minilm-l6"), ["import"])
    folder = stage.workspace.local_folder("model")
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
    assert metrics == manifest.details
    assert (metrics["split"], metrics["queries"], metrics["passages"]) == ("test", 4, 4)
    by_measure = {d["measure"]: Difference.model_validate(d) for d in metrics["differences"]}
    assert list(by_measure) == ["RR@10", "R@2"]
    rr = by_measure["RR@10"]
    assert rr.difference == pytest.approx(trained["RR@10"] - base["RR@10"])
    assert (rr.wins, rr.wins + rr.ties + rr.losses) == (0, 4)
    assert rr.low <= rr.difference <= rr.high
    assert rr.p_randomisation <= rr.p_randomisation_holm

    values = workspace.read_table("runs/queries.parquet").to_pylist()
    assert len(values) == 2 * 2 * 4
    of_base = [row["value"] for row in values if row["run"] == "base" and row["measure"] == "RR@10"]
    assert of_base == [1.0] * 4
    assert {row["query_id"] for row in values} == {"q1", "q2", "q3", "q4"}

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
    assert re.search(r"RR@10 .* 1\.0000 .* to .* 0/\d/\d", said)
    assert run(config, workspace, report) == manifest
    assert sorted(manifest.files) == [
        "report/index.html",
        "runs/base.trec",
        "runs/metrics.json",
        "runs/queries.parquet",
        "runs/trained.trec",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"evaluate.split": "tset"}, r"'tset'; there are: dev, test\."),
        ({"evaluate.measures": ["nDCG"], "evaluate.split": ""}, "there are: dev, test"),
        ({"evaluate.measures": ["nope@10"]}, "'nope@10' is no measure of ir_measures"),
        ({"evaluate.depth": 50}, "R@100 looks at 100 hits.*raise the depth"),
        ({}, "run `causalneg train` first"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, report: Reporter, flags: dict[str, object], message: str) -> None:
    workspace = _workspace(tmp_path / "ws")
    with pytest.raises(UserError, match=message):
        run(load_config(flags=flags), workspace, report)


def test_base_is_what_training_starts_from(tmp_path: Path, report: Reporter) -> None:
    # A plain decoder in bf16: by itself it is causal, pools its last token, and has a chat template for prompt.
    plain = str(tiny_llama(tmp_path / "llama"))
    workspace = random_workspace(tmp_path / "ws", rows=12)
    workspace.write_rows("qrels", "part-1", Qrel, [_test_qrel(n) for n in range(12)])
    wanted = {"attention": "bidirectional", "query_prompt": "w1 w2 ", "passage_prompt": "w3 "}
    stage = workspace.begin("train", _training(plain, **wanted), ["import"])
    start = Encoder(Path(plain), EncoderSettings(**wanted), "fp32", torch.device("cpu"))
    start.save(stage.workspace.local_folder("model"))  # after a training that changed nothing
    stage.finish(Counts(rows_in=1, accepted=1))

    base = started_from(workspace)
    assert load_encoder(resolve(plain))[1].pooling_mode == "lasttoken"
    assert load_encoder(base)[1].pooling_mode == "mean"
    assert base.fingerprint != resolve(plain).fingerprint
    texts = ["w5 w6 w7", "w8"]
    for kind in ("query", "passage"):
        expected = encode(load_encoder(resolve(str(workspace.local_folder("model")))), texts, kind, precision="fp32")
        np.testing.assert_allclose(encode(load_encoder(base), texts, kind, precision="fp32"), expected, atol=1e-6)

    config = load_config(flags={"workspace": workspace.root_url, "encode.precision": "fp32"})
    manifest = run(config, workspace, report)
    assert manifest.details["base"] == manifest.details["trained"]
    assert {d["p_randomisation"] for d in manifest.details["differences"]} == {1.0}
    assert "which training started from, and not embedded:minilm-l6" in report.console.file.getvalue()  # type: ignore[attr-defined]
    assert list(manifest.details["base"]) == ["nDCG@10", "RR@10", "R@10", "R@100", "AP@100"]

    (Path(plain) / "config.json").write_text((Path(plain) / "config.json").read_text() + "\n")
    with pytest.raises(UserError, match="not the one any more"):
        run(config, workspace, report)


def _test_qrel(number: int) -> Qrel:
    return Qrel(query_id=f"q{number}", passage_id=f"p{number + 1}", split="test")


def test_a_single_query_is_measured_and_not_tested(tmp_path: Path, report: Reporter) -> None:
    workspace = _workspace(tmp_path / "ws")
    workspace.write_rows("qrels", "000000", Qrel, [Qrel(query_id="q1", passage_id="rome", split="test")])
    stage = workspace.begin("train", _training("embedded:minilm-l6"), ["import"])
    shutil.copytree(resolve("embedded:minilm-l6").path, stage.workspace.local_folder("model"))
    stage.finish(Counts(rows_in=1, accepted=1))
    manifest = run(load_config(flags={"workspace": workspace.root_url}), workspace, report)
    assert manifest.details["differences"] == []
    assert re.search(r"nDCG@10 .* 1\.0000 .* \+0\.0000 .* - ", report.console.file.getvalue())  # type: ignore[attr-defined]


def test_nothing_in_a_text_becomes_markup() -> None:
    evil = '<script>alert("&")</script>'
    change = Change(evil, 0.0, 1.0, TopHit(evil, False), TopHit("x" * 1000, True))
    sections = [
        paragraph(evil),
        table([evil], [[evil]], evil),
        curve(evil, [0.5, -0.25]),
        changes(evil, [change], evil),
        changes(evil, [], evil),
    ]
    text = page(evil, sections)
    assert "<script" not in text
    assert text.count("&lt;script") == 13
    assert "x" * 301 not in text


@pytest.mark.parametrize("values", [[0.0], [1.0, -1.0], [0.0] * 700, list(np.linspace(-1, 1, 5000))])
def test_a_curve_stays_small_and_inside_its_frame(values: list[float]) -> None:
    text = str(curve("differences", values))
    heights = [float(y) for y in re.findall(r" V([\d.]+)", text)]
    assert len(heights) <= 2 * 641
    assert all(0 <= height <= 180 for height in heights)
