"""The store of training rows against what lies in the workspace."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from row_samples import mined, negative, write_relabelled
from training_samples import prepared, random_workspace, tiny_encoder, tiny_settings

from causalneg.errors import UserError
from causalneg.margins import relative_score
from causalneg.records import Mined, Negative, Passage, Qrel, Query
from causalneg.training.data.store import HELD_OUT_IDS, Data, Kind, is_whole
from causalneg.training.encoder.encoder import Encoder
from causalneg.workspace import Workspace


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    settings = tiny_settings()
    return Encoder(tiny_encoder(tmp_path_factory.mktemp("e") / "e"), settings.encoder, "fp32", torch.device("cpu"))


class Readable:
    """A store with texts in place of numbers."""

    def __init__(self, data: Data, encoder: Encoder, workspace: Workspace) -> None:
        self.data = data
        texts = [q.text for q in workspace.read_rows("queries", Query)]
        texts += [p.full_text for p in workspace.read_rows("corpus", Passage)]
        texts += [n.full_text for n in workspace.read_rows("negatives", Negative)]
        self._text = {
            (kind, ids.tobytes()): text
            for kind in ("query", "passage")
            for text, ids in zip(texts, encoder.tokenize(texts, kind), strict=True)  # type: ignore[arg-type]
        }

    def text(self, kind: Kind, number: int) -> str:
        return self._text[kind, self.data.tokens(kind, [number])[0].tobytes()]

    def row(self, row: int) -> tuple[str, str, list[tuple[str, bool]]]:
        """Query, positive, and negatives with whether they are generated."""
        data = self.data
        own = slice(data["row.start"][row], data["row.start"][row + 1])
        negatives = zip(data["negative.passage"][own], data["negative.generated"][own], strict=True)
        return (
            self.text("query", data["row.query"][row]),
            self.text("passage", data["row.positive"][row]),
            [(self.text("passage", n), bool(g)) for n, g in negatives],
        )


def _expected(workspace: Workspace) -> list[tuple[str, str, list[tuple[str, bool]]]]:
    """The join by loops over everything."""
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query)}
    passages = {p.id: p.full_text for p in workspace.read_rows("corpus", Passage)}
    rows = []
    for qrel in workspace.read_rows("qrels", Qrel):
        if qrel.split != "train":
            continue
        negatives = [
            (passages[m.passage_id], False)
            for m in workspace.read_rows("mined", Mined)
            if m.verdict == "accepted" and m.query_id == qrel.query_id
        ] + [
            (n.full_text, True)
            for n in workspace.read_rows("negatives", Negative)
            if n.verdict == "accepted" and (n.query_id, n.positive_id) == (qrel.query_id, qrel.passage_id)
        ]
        rows.append((queries[qrel.query_id], passages[qrel.passage_id], negatives))
    return rows


def test_rows_are_the_pairs_with_their_negatives(encoder: Encoder, tmp_path: Path) -> None:
    workspace = random_workspace(tmp_path / "ws")
    data = prepared(workspace, tmp_path / "data", encoder, tiny_settings(dev__share=0.0))
    readable = Readable(data, encoder, workspace)
    expected = _expected(workspace)
    assert [readable.row(r) for r in range(len(expected))] == expected
    assert data["rows.train"].tolist() == list(range(12))
    assert data.facts["rows"] == data.facts["pairs"] == 12
    assert data.facts["mined"] == sum(not g for _, _, n in expected for _, g in n)
    assert data.facts["generated"] == sum(g for _, _, n in expected for _, g in n)
    assert data.facts["dev_query"] == data.facts["dev_passage"] == 0


def test_queries_held_out_are_watched_and_not_trained_on(encoder: Encoder, tmp_path: Path) -> None:
    workspace = random_workspace(tmp_path / "ws")
    data = prepared(workspace, tmp_path / "data", encoder, tiny_settings(dev__share=0.25))
    readable = Readable(data, encoder, workspace)
    held_out = [readable.row(r)[0] for r in data["rows.held_out"]]
    trained = [readable.row(r)[0] for r in data["rows.train"]]
    assert (len(held_out), len(trained)) == (3, 9)
    assert not set(held_out) & set(trained)
    ids = pq.read_table(tmp_path / "data" / HELD_OUT_IDS).column("query_id").to_pylist()
    assert [q.text for q in workspace.read_rows("queries", Query) if q.id in ids] == held_out
    queries = [readable.text("query", n) for n in data["dev.query"]]
    passages = [readable.text("passage", n) for n in data["dev.passage"]]
    assert sorted(queries) == sorted(held_out)
    assert len(passages) == len(set(passages)) == 20
    pairs = {(queries[q], passages[p]) for q, p in data["dev.relevant"].reshape(-1, 2)}
    assert pairs == {readable.row(r)[:2] for r in data["rows.held_out"]}
    found_by_mine = {text for r in data["rows.held_out"] for text, generated in readable.row(r)[2] if not generated}
    assert found_by_mine <= set(passages)

    other = prepared(workspace, tmp_path / "other", encoder, tiny_settings(dev__share=0.25), seed=6)
    assert other["rows.held_out"].tolist() != data["rows.held_out"].tolist()
    again = prepared(workspace, tmp_path / "again", encoder, tiny_settings(dev__share=0.25))
    assert again["rows.held_out"].tolist() == data["rows.held_out"].tolist()


def test_a_dev_split_is_used_and_nothing_is_held_out(encoder: Encoder, tmp_path: Path) -> None:
    workspace = random_workspace(tmp_path / "ws")
    workspace.write_rows("qrels", "part-1", Qrel, [Qrel(query_id="q3", passage_id="p7", split="it's; dev")])
    data = prepared(workspace, tmp_path / "data", encoder, tiny_settings(dev__split="it's; dev"))
    assert (data.facts["dev_query"], data.facts["held_out"], len(data["rows.train"])) == (1, 0, 12)
    assert len(data["dev.relevant"]) == 2


def test_too_few_queries_are_not_held_out(encoder: Encoder, tmp_path: Path) -> None:
    data = prepared(random_workspace(tmp_path / "ws"), tmp_path / "data", encoder, tiny_settings(dev__min_queries=9))
    assert (data.facts["held_out"], data.facts["dev_query"]) == (0, 0)
    assert pq.read_table(tmp_path / "data" / HELD_OUT_IDS).column("query_id").to_pylist() == []


def test_a_query_is_held_out_with_all_its_pairs(encoder: Encoder, tmp_path: Path) -> None:
    workspace = random_workspace(tmp_path / "ws")
    more = [Qrel(query_id=f"q{i}", passage_id=f"p{i + 6}") for i in range(12)]
    workspace.write_rows("qrels", "part-1", Qrel, more)
    data = prepared(workspace, tmp_path / "data", encoder, tiny_settings(dev__share=0.25))
    assert (len(data["rows.train"]), len(data["rows.held_out"])) == (18, 6)
    trained, held_out = (set(data["row.query"][data[f"rows.{name}"]].tolist()) for name in ("train", "held_out"))
    assert not trained & held_out
    assert len(pq.read_table(tmp_path / "data" / HELD_OUT_IDS)) == len(held_out) == 3


def test_a_negative_with_the_positives_tokens_is_left_out(encoder: Encoder, tmp_path: Path) -> None:
    # An edit behind the longest length leaves the very positive as a negative.
    workspace = random_workspace(tmp_path / "ws")
    long = " ".join(f"w{i}" for i in range(30))
    workspace.write_rows("corpus", "part-1", Passage, [Passage(id="long", text=long)])
    workspace.write_rows("qrels", "part-1", Qrel, [Qrel(query_id="q0", passage_id="long")])
    workspace.write_rows("negatives", "part-1", Negative, [negative("q0", "long", long.replace("w29", "w1"))])
    data = prepared(workspace, tmp_path / "data", encoder, tiny_settings(dev__share=0.0))
    assert data.facts["same_as_positive"] == 1
    assert data.facts["rows"] == 13
    assert data["row.start"][-1] - data["row.start"][-2] == 1  # the mined one


@pytest.mark.parametrize("candidates", ["own", "in_batch", "global"])
def test_pairs_without_negatives_are_trained_on_where_candidates_are_shared(
    encoder: Encoder, tmp_path: Path, candidates: str
) -> None:
    workspace = random_workspace(tmp_path / "ws")
    long = " ".join(f"w{i}" for i in range(30))
    workspace.write_rows("corpus", "part-1", Passage, [Passage(id="long", text=long)])
    workspace.write_rows("queries", "part-1", Query, [Query(id="bare", text="w1 w2"), Query(id="copied", text="w3")])
    workspace.write_rows("qrels", "part-1", Qrel, [Qrel(query_id=q, passage_id="long") for q in ("bare", "copied")])
    workspace.write_rows("negatives", "part-1", Negative, [negative("copied", "long", long.replace("w29", "w1"))])
    settings = tiny_settings(dev__share=0.0, loss__candidates=candidates)
    data = prepared(workspace, tmp_path / "data", encoder, settings)
    readable = Readable(data, encoder, workspace)
    assert (data.facts["pairs"], data.facts["without_negative"], data.facts["same_as_positive"]) == (14, 2, 1)
    trained = [readable.row(row) for row in data["rows.train"]]
    bare = [row for row in trained if not row[2]]
    if candidates == "own":
        assert (data.facts["rows"], bare) == (12, [])
    else:
        assert data.facts["rows"] == 14
        assert [query for query, _, _ in bare] == ["w1 w2", "w3"]


def test_teachers_scores_and_rules_belong_to_their_negatives(encoder: Encoder, tmp_path: Path) -> None:
    workspace = random_workspace(tmp_path / "ws")
    rules = [
        {"source": "generated", "weight": 0.2},
        {"score": "relative", "at_least": 0.0, "weight": 0.5},
        {"score": "cosine", "below": 0.9, "weight": 0.5},
        {"violation": "temporal_violation", "weight": 0.5},
        {"violation": "entity_shift", "weight": 0.5},
    ]
    for teacher in ("cross", "dense"):
        settings = tiny_settings(dev__share=0.0, weights=rules, loss__distillation_scores=teacher)
        data = prepared(workspace, tmp_path / teacher, encoder, settings)
        mined_rows = {(m.query_id, m.passage_id): m for m in workspace.read_rows("mined", Mined)}
        expected_rules, expected = [], []
        for number in range(12):
            for k in range(1, 2 + number % 4):
                row = mined_rows[f"q{number}", f"p{(number + 1 + k) % 20}"]
                relative = relative_score(float(row.cross_score or 0), row.positive_score)
                expected_rules.append(2 * (relative >= 0))
                expected.append(row.cross_score if teacher == "cross" else row.dense_score)
            expected_rules += [1 + 4 + 8] * (number % 3)
            expected += [np.nan if teacher == "cross" else 0.8] * (number % 3)
        assert data["negative.rules"].tolist() == expected_rules
        np.testing.assert_allclose(data["negative.teacher"], np.array(expected, np.float32))
        assert set(data["row.teacher"].tolist()) == {3.0 if teacher == "cross" else np.float32(0.9)}


def test_positives_of_a_query_are_known_whatever_their_split(encoder: Encoder, tmp_path: Path) -> None:
    workspace = random_workspace(tmp_path / "ws")
    data = prepared(workspace, tmp_path / "data", encoder, tiny_settings(dev__share=0.0))
    readable = Readable(data, encoder, workspace)
    passages = {p.id: p.full_text for p in workspace.read_rows("corpus", Passage)}
    query = int(data["row.query"][1])
    known = data["known.passage"][data["known.start"][query] : data["known.start"][query + 1]]
    assert {readable.text("passage", n) for n in known} == {passages["p1"], passages["p2"]}


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (
            lambda ws: ws.write_rows("mined", "part-1", Mined, [mined("q0", "gone")]),
            ["passage 'gone'", "corpus", "causalneg import"],
        ),
        (
            lambda ws: ws.write_rows("qrels", "part-1", Qrel, [Qrel(query_id="nobody", passage_id="p1")]),
            ["query 'nobody'", "queries", "causalneg import"],
        ),
    ],
)
def test_a_text_that_is_not_there_is_named_and_nothing_is_left(
    encoder: Encoder, tmp_path: Path, spoil: Callable[[Workspace], object], parts: list[str]
) -> None:
    workspace = random_workspace(tmp_path / "ws")
    spoil(workspace)
    if "nobody" in parts[0]:
        workspace.write_rows("mined", "part-1", Mined, [mined("nobody", "p3")])
    with pytest.raises(UserError) as error:
        prepared(workspace, tmp_path / "data", encoder, tiny_settings())
    assert all(part in str(error.value) for part in parts)
    assert not is_whole(tmp_path / "data")


def test_a_store_that_was_cut_off_is_written_anew(encoder: Encoder, tmp_path: Path) -> None:
    workspace = random_workspace(tmp_path / "ws")
    left = tmp_path / ".data-torn"
    left.mkdir()
    (left / "row.start").write_bytes(b"torn")
    data = prepared(workspace, tmp_path / "data", encoder, tiny_settings())
    assert not left.exists()
    workspace.remove("corpus")  # what is whole is opened, not made again
    assert prepared(workspace, tmp_path / "data", encoder, tiny_settings()).facts == data.facts


_PEAK = """
import sys
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, "tests")
from training_samples import tiny_settings
from causalneg.training.data.store import Data
from causalneg.training.encoder.encoder import Encoder
from causalneg.training.step import Step
from causalneg.training.workers import Alone
torch.set_num_threads(1)
settings = tiny_settings(batch_size=16)
encoder = Encoder(Path(sys.argv[1]), settings.encoder, "fp32", torch.device("cpu"))
data = Data(Path(sys.argv[2]))
rows = data["rows.train"]
step = Step(encoder, data, settings, 0, Alone())
order = np.random.default_rng(0).permutation(len(rows))
for number in range(60):
    step(number, rows[order[16 * number % len(rows) :][:16]], 0.0)
# Not getrusage: what it says includes the parent before exec.
print(*(line.split()[1] for line in Path('/proc/self/status').open() if line.startswith('VmHWM')))
"""


def test_a_workers_memory_does_not_grow_with_the_data_set(encoder: Encoder, tmp_path: Path, repository: Path) -> None:
    model = tiny_encoder(tmp_path / "encoder")
    peaks = []
    for rows in (200, 20_000):
        folder = tmp_path / str(rows)
        prepared(random_workspace(folder / "ws", rows), folder / "data", encoder, tiny_settings())
        command = [sys.executable, "-c", _PEAK, str(model), str(folder / "data")]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
    assert peaks[1] < 1.05 * peaks[0], peaks  # 100 times the rows


@pytest.mark.parametrize("how", ["keep", "remove"])
def test_false_negatives_are_no_rows_unless_they_are_kept(encoder: Encoder, tmp_path: Path, how: str) -> None:
    workspace = random_workspace(tmp_path / "ws")
    false = [next(m for m in workspace.read_rows("mined", Mined) if m.query_id == q and m.verdict == "accepted")
             for q in ("q1", "q2", "q3")]  # fmt: skip
    write_relabelled(workspace, {(m.query_id, m.passage_id): "partly" for m in false})
    data = prepared(workspace, tmp_path / "store", encoder, tiny_settings(false_negatives=how))
    seen = Readable(data, encoder, workspace)
    passages = {p.id: p.full_text for p in workspace.read_rows("corpus", Passage)}
    gone = {(m.query_id, m.passage_id) for m in false} if how == "remove" else set()
    removed = {(q.text, passages[p]) for q in workspace.read_rows("queries", Query) for i, p in gone if i == q.id}
    expected = [
        (query, positive, [n for n in negatives if n[1] or (query, n[0]) not in removed])
        for query, positive, negatives in _expected(workspace)
    ]
    assert [seen.row(r) for r in range(data.facts["rows"])] == [row for row in expected if row[2]]
    assert data.facts["false_negatives"] == (3 if how == "remove" else 0)
