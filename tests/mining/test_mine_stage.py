"""The mine stage as a whole, on a small corpus with the embedded encoder."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.mining import search
from causalneg.mining.report import MiningReport
from causalneg.mining.run import run as mine
from causalneg.models import resolve
from causalneg.records import Candidate, Mined, Passage, Qrel, Query, Relation, from_table
from causalneg.runtime import ray_session
from causalneg.sources.run import run as import_data
from causalneg.workspace import Manifest, Workspace

SUBJECTS = ["the Moon", "the river Rhine", "a steam engine", "the blue whale", "an opera house", "the printing press"]
FACTS = ["was first described in a letter", "is older than its name", "appears on a coin", "has a museum in Bonn"]
CORPUS = [
    f"{s[0].upper()}{s[1:]} {f}, as {n} sources say."
    for n, (s, f) in enumerate((s, f) for s in SUBJECTS for f in FACTS)
]


@pytest.fixture
def workspace(tmp_path: Path, report: Reporter) -> Workspace:
    """Six queries, one of them with two positives and one with a given negative."""
    source = tmp_path / "data"
    (source / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "text": text} for n, text in enumerate(CORPUS)]
    (source / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    queries = [{"_id": f"q{n}", "text": f"What is known about {s}?"} for n, s in enumerate(SUBJECTS)]
    (source / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    qrels = [f"q{n}\td{4 * n}\t1" for n in range(6)] + ["q0\td1\t1", "q1\td23\t0"]
    (source / "qrels" / "train.tsv").write_text("\n".join(qrels) + "\n")
    workspace = Workspace(str(tmp_path / "ws"))
    import_data(load_config(flags={"import.source": str(source)}), workspace, report)
    return workspace


@pytest.fixture
def mined(workspace: Workspace, report: Reporter) -> Callable[..., Manifest]:
    """Mine with these settings (dots as `__`), three negatives a query."""

    def run(**flags: Any) -> Manifest:
        given = {name.replace("__", "."): value for name, value in flags.items()}
        return mine(load_config(flags={"mine.num_negatives": 3} | given), workspace, report)

    return run


def rows(workspace: Workspace) -> list[Mined]:
    return list(workspace.read_rows("mined", Mined))


def candidates(workspace: Workspace) -> list[Candidate]:
    (name,) = workspace.list_files(["candidates"], ".parquet")
    return from_table(Candidate, workspace.read_table(name))


def touched(workspace: Workspace, *folders: str) -> dict[str, int]:
    return {n: Path(workspace.path(n)).stat().st_mtime_ns for n in workspace.list_files(folders)}


# Mines with other settings, and kills itself when its rows are written and its result is not yet finished.
KILLED = """
import io, os, signal, sys
from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.mining.run import run
from causalneg.workspace import StageRun, Workspace
StageRun.finish = lambda *arguments, **named: os.kill(os.getpid(), signal.SIGKILL)
run(load_config(flags={"mine.num_negatives": 2}), Workspace(sys.argv[1]), Reporter(io.StringIO()))
"""


def test_a_mine_that_is_killed_leaves_the_earlier_result(workspace: Workspace, mined: Callable[..., Manifest]) -> None:
    made = mined()
    before = {name: workspace.read_bytes(name) for name in workspace.list_files(["mined", "manifests"])}
    killed = subprocess.run([sys.executable, "-c", KILLED, workspace.root], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert workspace.is_being_built("mine")
    assert workspace.require("mine") == made
    assert {name: workspace.read_bytes(name) for name in workspace.list_files(["mined", "manifests"])} == before
    assert mined(mine__num_negatives=2).counts.accepted < made.counts.accepted
    assert not workspace.exists("building")


def test_negatives_are_the_best_that_are_no_positives(workspace: Workspace, mined: Callable[..., Manifest]) -> None:
    manifest = mined(mine__search__sources=["dense"], mine__relative_margin=None, encode__precision="fp32")
    encoder = load_encoder(resolve("embedded:minilm-l6"))
    texts = [p.full_text for p in workspace.read_rows("corpus", Passage)]
    cosines = (
        encode(encoder, [q.text for q in workspace.read_rows("queries", Query)], "query")
        @ encode(encoder, texts, "passage", precision="fp32").T
    )
    kept: dict[str, list[str]] = {}
    for row in rows(workspace):
        if row.verdict == "accepted":
            kept.setdefault(row.query_id, []).append(row.passage_id)
            number = int(row.passage_id[1:])
            assert row.dense_score == pytest.approx(cosines[int(row.query_id[1:]), number], abs=1e-5)
    for n in range(6):
        best = [f"d{at}" for at in np.argsort(-cosines[n])]
        expected = [p for p in best if p not in {f"d{4 * n}", *(["d1"] if n == 0 else [])}]
        if n == 1:  # the given negative comes first
            expected = ["d23", *[p for p in expected if p != "d23"]]
        assert kept[f"q{n}"] == expected[:3]
    assert manifest.counts.accepted == 18
    assert manifest.counts.rows_in == sum(manifest.details["verdicts"].values())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"relative_margin": 0.1}, {"relative_margin": 0.1}),
        ({"relative_margin": None, "range_min": 2}, {"range_min": 2}),
        ({"relative_margin": None, "absolute_margin": 0.2, "range_min": 1}, {"absolute_margin": 0.2, "range_min": 1}),
        ({"relative_margin": None, "max_score": 0.5, "min_score": 0.2}, {"max_score": 0.5, "min_score": 0.2}),
    ],
)
def test_negatives_are_those_of_mine_hard_negatives(
    workspace: Workspace, mined: Callable[..., Manifest], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    qrels = workspace.read_rows("qrels", Qrel)
    workspace.write_rows("qrels", "part-000000", Qrel, [q for q in qrels if q.score > 0])  # it knows no given ones
    flags = {f"mine__{name}": value for name, value in ours.items()}
    mined(mine__search__sources=["dense"], mine__near_duplicate=None, encode__precision="fp32", **flags)
    text_of = {p.id: p.full_text for p in workspace.read_rows("corpus", Passage)}
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query)}
    pairs = [(queries[q], text_of[p]) for q, own in workspace.positives("train").items() for p in own]
    peer = mine_hard_negatives(
        Dataset.from_dict({"query": [q for q, _ in pairs], "positive": [p for _, p in pairs]}),
        load_encoder(resolve("embedded:minilm-l6")),
        corpus=list(text_of.values()),
        range_max=22,
        num_negatives=3,
        verbose=False,
        **theirs,
    )
    expected = {(row["query"], row["negative"]) for row in peer}
    assert expected
    assert {
        (queries[r.query_id], text_of[r.passage_id]) for r in rows(workspace) if r.verdict == "accepted"
    } == expected


def test_another_filter_searches_nothing(workspace: Workspace, mined: Callable[..., Manifest]) -> None:
    mined()
    before = touched(workspace, "candidates", "bm25", "embeddings", "signatures")
    assert len({n.split("/")[0] for n in before}) == 4
    changed = mined(mine__sampling="random", mine__max_score=0.4, mine__near_duplicate=0.7)
    assert touched(workspace, "candidates", "bm25", "embeddings", "signatures") == before
    assert changed.details["verdicts"]["max_score"] > 0
    assert all(row.dense_score <= 0.4 or row.rejected_by for row in rows(workspace) if row.relation == "unjudged")


def test_shards_change_nothing(
    workspace: Workspace, mined: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    mined()
    whole = candidates(workspace)
    workspace.remove("candidates")
    files = {f"corpus/part-{n:06d}.parquet": 10 for n in range(3)}
    assert [(s.start, s.end) for s in search.make_shards(files, 25)] == [(0, 20), (20, 30)]
    # The corpus as four files, each a shard of its own.
    imported = workspace.require("import")
    (name,) = (n for n in imported.files if n.startswith("corpus/"))
    table = workspace.read_table(name)
    for number, start in enumerate(range(0, 24, 7)):
        workspace.write_table(f"corpus/part-{number:06d}.parquet", table.slice(start, 7))
    names = workspace.list_files(["corpus"])
    assert len(names) == 4
    entries = {n: workspace.checksum(n) for n in names}
    others = {n: e for n, e in imported.files.items() if not n.startswith("corpus/")}
    split = imported.model_copy(update={"files": others | entries})
    workspace.write_bytes("manifests/import.json", split.model_dump_json().encode())
    mined(mine__search__shard_passages=7)
    assert len(workspace.list_files(["bm25"], "lengths.npy")) == 5
    for one, other in zip(whole, candidates(workspace), strict=True):
        assert (one.bm25_score or 0.0) == pytest.approx(other.bm25_score or 0.0, rel=1e-5)
        assert one.dense_score == pytest.approx(other.dense_score, abs=1e-5)
        scores = {"bm25_score", "dense_score"}
        assert one.model_dump(exclude=scores) == other.model_dump(exclude=scores)


def test_bm25_alone_encodes_only_what_it_found(workspace: Workspace, mined: Callable[..., Manifest]) -> None:
    mined(mine__search__sources=["bm25"], mine__search__depth=2, mine__near_duplicate=None)
    found = candidates(workspace)
    assert all(c.dense_rank is None for c in found)
    encoded = sum(len(np.load(workspace.path(n))) for n in workspace.list_files(["embeddings"], ".keys.npy"))
    assert encoded == len({c.passage_id for c in found}) < len(CORPUS)


def test_another_encoder_mines_than_is_trained(workspace: Workspace, mined: Callable[..., Manifest]) -> None:
    own = mined()
    found = rows(workspace)
    assert mined(encoder="a language model that cannot mine", miner="embedded:minilm-l6").key == own.key
    assert rows(workspace) == found


def test_given_negatives_and_positives_are_marked(workspace: Workspace, mined: Callable[..., Manifest]) -> None:
    mined()
    relations = {(c.query_id, c.passage_id): c.relation for c in candidates(workspace)}
    assert [pair for pair, r in relations.items() if r is Relation.NEGATIVE] == [("q1", "d23")]
    assert len([pair for pair, r in relations.items() if r is Relation.POSITIVE]) == 7
    (row,) = (r for r in rows(workspace) if (r.query_id, r.passage_id) == ("q1", "d23"))
    assert row.verdict == "accepted"


def test_the_report_agrees_with_the_rows(workspace: Workspace, mined: Callable[..., Manifest]) -> None:
    mined(mine__min_score=0.3)
    report = MiningReport.model_validate_json(workspace.read_bytes("mined/report.json"))
    kept = [r for r in rows(workspace) if r.verdict == "accepted"]
    assert (report.queries, report.kept, report.candidates) == (6, len(kept), len(rows(workspace)))
    assert report.scores.kept == np.histogram([r.score for r in kept], report.scores.edges)[0].tolist()
    assert sum(report.scores.positives) == 7
    assert sum(n * queries for n, queries in report.kept_per_query.items()) == report.kept
    assert sum(report.kept_per_query.values()) == 6
    assert (
        report.short == sum(q for n, q in report.kept_per_query.items() if n < 3) == sum(report.short_because.values())
    )
    assert sum(report.found_by.values()) == report.kept
    # One query has two positives; one of them is left out.
    assert report.left_out is not None
    assert report.left_out.positives == 1
    assert report.left_out.low <= report.left_out.taken <= report.left_out.high
    page = workspace.read_bytes("mined/report.html").decode()
    assert "<svg" in page
    assert "What is known about" in page
    assert not re.search(r'(src|href)="http', page)


def test_texts_in_the_page_are_text(tmp_path: Path, report: Reporter) -> None:
    pairs = tmp_path / "pairs.jsonl"
    row = {"query": "<script>alert(1)</script>", "positive": "<img src=x>", "split": "train"}
    pairs.write_text("\n".join([json.dumps(row), json.dumps({"query": "b", "positive": "other", "split": "train"})]))
    workspace = Workspace(str(tmp_path / "ws"))
    config = load_config(flags={"import.source": str(pairs)})
    import_data(config, workspace, report)
    mine(config, workspace, report)
    page = workspace.read_bytes("mined/report.html").decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<img" not in page


def cross_encoder(folder: Path) -> str:
    """Write a small cross-encoder with weights drawn by seed: what it says is arbitrary, but always the same."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    base = resolve("embedded:minilm-l6").path
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(base, num_labels=1, num_hidden_layers=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    assert CrossEncoder(str(folder), local_files_only=True).num_labels == 1
    return str(folder)


def test_a_cross_encoder_scores_anew_and_only_once(
    workspace: Workspace, mined: Callable[..., Manifest], tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder

    mined()
    before = touched(workspace, "candidates")
    name = cross_encoder(tmp_path / "cross")
    mined(mine__search__cross_encoder=name, mine__relative_margin=None)
    found = rows(workspace)
    passages = workspace.passages({r.passage_id for r in found})
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query)}
    expected = CrossEncoder(name, local_files_only=True).predict(
        [(queries[r.query_id], passages[r.passage_id].full_text) for r in found]
    )
    np.testing.assert_allclose([r.cross_score for r in found], expected, atol=1e-5)
    for query in queries:
        scores = [r.score for r in found if r.query_id == query and r.relation == "unjudged"]
        assert scores == sorted(scores, reverse=True)
    both = touched(workspace, "candidates")
    assert before.items() < both.items()
    mined(mine__search__cross_encoder=name, mine__num_negatives=2)
    assert touched(workspace, "candidates") == both


@pytest.mark.ray
def test_workers_find_the_same(workspace: Workspace, mined: Callable[..., Manifest]) -> None:
    mined()
    alone = rows(workspace)
    for folder in ("candidates", "bm25", "embeddings", "signatures", "mined", "manifests/mine.json"):
        workspace.remove(folder)
    with ray_session():
        mined(encode__workers=2)
    assert [r.model_dump(exclude={"dense_score", "positive_score"}) for r in rows(workspace)] == [
        r.model_dump(exclude={"dense_score", "positive_score"}) for r in alone
    ]


def test_data_without_a_train_split_is_refused(tmp_path: Path, report: Reporter) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"query": "who?", "positive": "She did.", "split": "test"}) + "\n")
    workspace = Workspace(str(tmp_path / "ws"))
    config = load_config(flags={"import.source": str(pairs)})
    import_data(config, workspace, report)
    with pytest.raises(UserError, match="No train query has a positive"):
        mine(config, workspace, report)
    assert workspace.manifest("mine") is None
