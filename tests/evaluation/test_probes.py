"""Contrast sets and planted counterfactuals as a part of the stage `evaluate`, from training to the page."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from row_samples import negative

from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.embedding import load_encoder
from causalneg.errors import UserError
from causalneg.evaluation.contrast import ContrastPair, compare, summarise
from causalneg.evaluation.probes import ContrastProbe, contrast_files, contrast_section
from causalneg.evaluation.run import run
from causalneg.mining.run import run as mine
from causalneg.records import Negative, Qrel, Query
from causalneg.runtime import ray_session
from causalneg.training.run import run as train
from causalneg.workspace import HELD_OUT, Counts, Workspace

CONTRAST = [
    {"query": "What is the capital of <i>Italy</i>?", "positive": "Rome is.", "counterfactual": "Bread is baked."},
    {"query": "What is bread made of?", "positive": "Bread: flour.", "counterfactual": "Rome.", "violation": "<b>all"},
]


def _generated(workspace: Workspace) -> None:
    """Finish a generation that gives each train pair the query itself and a passage about something else."""
    stage = workspace.begin("generate", {}, ["import", "mine"])
    texts = {query.id: query.text for query in workspace.read_rows("queries", Query)}
    positives = workspace.positives("train")
    rows = [
        negative(query, own[0], text)
        for query, own in positives.items()
        for text in (texts[query], f"Penguins swim in the sea, {query}.")
    ]
    stage.workspace.write_rows("negatives", "000000", Negative, rows)
    stage.finish(Counts(rows_in=len(positives), accepted=len(positives)))


def _config(workspace: Workspace, **more: object) -> Config:
    fast = {
        "workspace": workspace.root_url,
        "mine.search.sources": ["bm25"],
        "train.epochs": 1,
        "train.mined_per_query": 1,
        "train.generated_per_query": 1,
        "train.encoder.passage_length": 32,
        "train.dev.min_queries": 3,
        "train.dev.share": 0.1,
        "train.dev.max_passages": 10,
        "train.threads": 1,
        "evaluate.resamples": 100,
    }
    return load_config(None, fast | {f"evaluate.{name}": value for name, value in more.items()})


@pytest.mark.ray
def test_probes_are_measured_kept_and_shown(sample_workspace: Workspace, tmp_path: Path, report: Reporter) -> None:
    shutil.copytree(sample_workspace.root, tmp_path / "ws")
    workspace = Workspace(str(tmp_path / "ws"))
    config = _config(workspace)
    with ray_session():
        mine(config, workspace, report)
        _generated(workspace)
        trained = train(config, workspace, report)
    held_out = workspace.read_table(HELD_OUT).column("query_id").to_pylist()
    assert len(held_out) == trained.details["held_out"] >= 3
    assert HELD_OUT in trained.files

    path = tmp_path / "my pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, CONTRAST)))
    config = _config(workspace, contrast=[str(path)])
    load_encoder.cache_clear()
    manifest = run(config, workspace, report)
    assert load_encoder.cache_info().misses == 2  # each encoder is loaded once
    assert run(config, workspace, report) == manifest

    planted = manifest.details["planted"]
    assert planted["measure"] == "nDCG@10"
    base = planted["overall"]["base"]
    assert (base["queries"], base["planted"]) == (len(held_out), 2 * len(held_out))
    assert (base["above_share"], base["above_mean"]) == (1.0, 1.0)  # nothing is nearer to a query than itself
    assert base["with_planted"] < base["without"]
    assert list(planted["by_violation"]) == ["temporal_violation"]
    rows = workspace.read_table("runs/planted.parquet").to_pylist()
    assert {row["query_id"] for row in rows} == set(held_out)
    assert all(row["base_above"] == 1 for row in rows)
    train_queries = {q.query_id for q in workspace.read_rows("qrels", Qrel) if q.split == "train"}
    assert set(held_out) < train_queries

    contrast = manifest.details["contrast"]["my-pairs"]
    assert contrast["base"]["overall"]["accuracy"] == 1.0
    assert contrast["base"]["by_group"].keys() == {"<b>all"}
    assert contrast["change"].keys() == {"", "<b>all"}
    kept = workspace.read_table("runs/contrast-my-pairs.parquet").to_pylist()
    assert [row["query"] for row in kept] == [row["query"] for row in CONTRAST]
    assert all(row["base_positive"] > row["base_counterfactual"] for row in kept)

    metrics = json.loads(workspace.read_bytes("runs/metrics.json"))
    assert (metrics["contrast"], metrics["planted"]) == (manifest.details["contrast"], planted)
    shown = workspace.read_bytes("report/index.html").decode()
    assert "Contrast set my-pairs" in shown
    assert "Planted counterfactuals" in shown
    assert "<b>all" not in shown
    assert report.console.file.getvalue().count("share with one above") == 2  # type: ignore[attr-defined]

    # Another content of the file is another result; a broken one leaves what there is.
    path.write_text(json.dumps(CONTRAST[0]))
    again = run(config, workspace, report)
    assert again.details["contrast"]["my-pairs"]["base"]["overall"]["pairs"] == 1
    path.write_text("{}")
    with pytest.raises(UserError, match=r"pairs\.jsonl, line 1: field 'query' is missing"):
        run(config, workspace, report)
    assert workspace.manifest("evaluate") == again
    path.unlink()
    with pytest.raises(UserError, match=r"evaluate\.contrast: .*pairs\.jsonl cannot be read"):
        run(config, workspace, report)

    # Without either, nothing of them is left.
    neither = run(_config(workspace, planted=False), workspace, report)
    assert not {"contrast", "planted"} & neither.details.keys()
    assert not workspace.exists("runs/planted.parquet")
    assert "counterfactual" not in workspace.read_bytes("report/index.html").decode()

    # Where nothing was held out, it is said.
    workspace.remove(HELD_OUT)
    workspace.write_rows("negatives", "000000", Negative, [])
    _, said = run(_config(workspace), workspace, report), report.console.file.getvalue()  # type: ignore[attr-defined]
    assert "no counterfactuals are planted" in said


def test_files_are_reported_under_names_of_their_own() -> None:
    files = ["a/pairs.jsonl.gz", "b/pairs.zip", "pairs-2.jsonl", "c/ä b.jsonl", ".jsonl"]
    settings = load_config(None, {"evaluate.contrast": files}).evaluate
    assert contrast_files(settings) == dict(
        zip(["pairs", "pairs-2", "pairs-2-2", "ä-b", "pairs-3"], files, strict=True)
    )


def test_no_name_becomes_markup() -> None:
    pairs = [ContrastPair(query=str(n), positive="p", counterfactual="c", group="<script>") for n in range(2)]
    scores = np.ones((2, 2), np.float32)
    result = summarise(pairs, scores, 0, 10)
    probe = ContrastProbe(base=result, trained=result, change=compare(pairs, scores, scores, 0, 10))
    (section,) = contrast_section({"<script>": probe})
    assert "<script" not in section
    assert not re.search(r"(src|href)=", section)
