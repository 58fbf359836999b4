"""What `causalneg export` writes, read back by the tools' own loaders where they are, or by their documented layout."""

import io
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from row_samples import mined, negative, write_relabelled

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.examples import RowIds
from causalneg.records import Mined, Negative, Passage, Qrel, Query, Relation
from causalneg.sources.export import rows as export_rows
from causalneg.sources.export.output import MANIFEST, ExportManifest
from causalneg.sources.export.run import FORMATS, run
from causalneg.sources.export.width import best_width, cut, fit, size
from causalneg.workspace import Counts, Workspace

G1, G2 = (negative("q0", "p0", f"changed in way {k}", scores={"cosine": 0.6, "positive_cosine": 0.8}) for k in (1, 2))


def _fill(workspace: Workspace) -> Workspace:
    """Write four pairs.

    q0 has three mined and two generated negatives, q1 two positives with two mined negatives, q2 nothing, and a
    search found the positives of q0 alone.
    """
    stage = workspace.begin("import", {}, [])
    corpus = [Passage(id=f"p{i}", title=f"Title {i}", text=f"text {i} \u2028 ü") for i in range(8)]
    stage.workspace.write_rows("corpus", "part-0", Passage, corpus)
    stage.workspace.write_rows("queries", "part-0", Query, [Query(id=f"q{i}", text=f"query {i}") for i in range(3)])
    pairs = [("q0", "p0"), ("q1", "p1"), ("q1", "p2"), ("q2", "p3")]
    stage.workspace.write_rows("qrels", "part-0", Qrel, [Qrel(query_id=q, passage_id=p) for q, p in pairs])
    stage.finish(Counts(rows_in=3, accepted=3))
    stage = workspace.begin("mine", {}, ["import"])
    found = [mined("q0", f"p{i}", dense_score=i / 10, cross_score=float(i)) for i in (6, 5, 4)]
    found += [mined("q1", f"p{i}") for i in (5, 6)]
    found += [mined("q2", "p7", "rejected")]
    found += [mined("q0", "p0", "rejected", relation=Relation.POSITIVE, dense_score=0.8, cross_score=8.0)]
    stage.workspace.write_rows("mined", "part-0", Mined, found)
    stage.finish(Counts(rows_in=7, accepted=5, rejected=2))
    return workspace


def _generate(workspace: Workspace) -> None:
    stage = workspace.begin("generate", {}, ["import", "mine"])
    stage.workspace.write_rows("negatives", "part-0", Negative, [G1, negative("q0", "p0", "bad", "rejected"), G2])
    stage.finish(Counts(rows_in=4, accepted=1, rejected=3))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The workspace after import and mine."""
    return _fill(Workspace(str(tmp_path / "ws")))


@pytest.fixture
def generated(workspace: Workspace) -> Workspace:
    """The same after generate."""
    _generate(workspace)
    return workspace


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where exports go."""
    return tmp_path / "out"


def export(workspace: Workspace, target: Path | str, **settings: Any) -> ExportManifest:
    flags = {f"export.{name}": value for name, value in settings.items()}
    return run(load_config(None, {"export.output": str(target), **flags}), workspace, Reporter(io.StringIO()))


def lines(target: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (target / "train.jsonl").read_text().split("\n") if line]


def text(number: int) -> str:
    return f"Title {number}. text {number} \u2028 ü"


# Formats


@pytest.mark.parametrize("file_type", ["parquet", "jsonl"])
def test_sentence_transformers_rows_have_one_width(generated: Workspace, target: Path, file_type: str) -> None:
    import datasets
    import torch
    from sentence_transformers.base.data_collator import BaseDataCollator

    manifest = export(generated, target, file_type=file_type, max_negatives=5)
    assert manifest.left_out == {"without_negatives": 1, "too_few_negatives": 2, "without_score": 0}
    loaded = datasets.load_dataset(str(target), split="train", cache_dir=str(target.parent / "cache"))
    assert loaded.column_names == ["anchor", "positive", *(f"negative_{n}" for n in range(1, 6))]
    (row,) = loaded
    assert list(row.values()) == ["query 0", text(0), text(6), text(5), text(4), G1.text, G2.text]

    seen: list[list[str]] = []

    def preprocess(texts: list[str], **_: object) -> dict[str, torch.Tensor]:
        seen.append(texts)
        return {"input_ids": torch.zeros(len(texts), 1)}

    BaseDataCollator(preprocess)([row])
    assert seen == [[value] for value in row.values()]


def test_unset_the_width_keeps_most_negatives(generated: Workspace, target: Path) -> None:
    manifest = export(generated, target)  # 5 negatives in one row, or 2 in each of three
    (table,) = [pq.read_table(target / "train.parquet")]
    assert table.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    assert table.column("negative_1").to_pylist() == [G1.text, text(5), text(5)]
    assert manifest.negatives == {"mined": 4, "generated": 2}
    assert manifest.counts == Counts(rows_in=4, accepted=3, rejected=1)


def test_triplets_lose_nothing(generated: Workspace, target: Path) -> None:
    manifest = export(generated, target, format="triplets")
    table = pq.read_table(target / "train.parquet")
    assert manifest.rows == table.num_rows == 5 + 2 + 2
    assert table.column_names == ["anchor", "positive", "negative"]
    assert table.column("negative").to_pylist()[:5] == [text(6), text(5), text(4), G1.text, G2.text]


def test_scores_are_labels_of_sentence_transformers(generated: Workspace, target: Path) -> None:
    manifest = export(generated, target, format="triplets", scores="dense")
    assert manifest.left_out["without_score"] == 2  # nobody scored the two positives of q1 one by one
    labels = pq.read_table(target / "train.parquet").column("label").to_pylist()
    assert labels == [[0.8, 0.6], [0.8, 0.5], [0.8, 0.4], [0.8, 0.6], [0.8, 0.6]]
    export(generated, target, format="sentence-transformers", scores="cross", generated_per_query=0)
    assert pq.read_table(target / "train.parquet").column("label").to_pylist() == [[8.0, 6.0, 5.0]]


class TevatronPassage(BaseModel):
    """A passage in Tevatron's layout."""

    model_config = ConfigDict(extra="forbid")
    docid: str
    title: str
    text: str
    score: float | None = None


class TevatronRow(BaseModel):
    """A row in Tevatron's layout: README of texttron/tevatron, and `TrainDataset`."""

    model_config = ConfigDict(extra="forbid")
    query_id: str
    query: str
    positive_passages: list[TevatronPassage]
    negative_passages: list[TevatronPassage]


def test_tevatron_rows_follow_its_layout(generated: Workspace, target: Path) -> None:
    export(generated, target, format="tevatron")
    first, *others = [TevatronRow.model_validate(row) for row in lines(target)]
    assert (first.query_id, first.query, [p.docid for p in first.positive_passages]) == ("q0", "query 0", ["p0"])
    assert [p.docid for p in first.negative_passages] == ["p6", "p5", "p4", G1.id, G2.id]
    assert first.positive_passages[0].title == "Title 0"
    assert [[p.docid for p in row.positive_passages] for row in others] == [["p1"], ["p2"]]
    assert first.positive_passages[0].score is None
    export(generated, target, format="tevatron", scores="dense", generated_per_query=0)
    (scored,) = [TevatronRow.model_validate(row) for row in lines(target)]
    assert [p.score for p in (*scored.positive_passages, *scored.negative_passages)] == [0.8, 0.6, 0.5, 0.4]


def test_tevatron_reads_it(generated: Workspace, target: Path, tmp_path: Path) -> None:
    loader = pytest.importorskip("tevatron.datasets.dataset", reason="needs the package tevatron 0.1")
    arguments = pytest.importorskip("tevatron.arguments").DataArguments(
        train_dir=None, dataset_name="json", train_n_passages=3
    )
    export(generated, target, format="tevatron")
    arguments.train_path, arguments.dataset_split = [str(target / "train.jsonl")], "train"
    arguments.dataset_language = "default"

    class Tokenizer:
        def encode(self, words: str, **_: object) -> str:
            return words

    loaded = loader.HFTrainDataset(Tokenizer(), arguments, str(tmp_path / "cache")).dataset
    row = loader.TrainPreProcessor(Tokenizer())(loaded[0])
    assert row["query"] == "query 0"
    assert row["positives"] == ["Title 0 text 0 \u2028 ü"]
    assert len(row["negatives"]) == 5


class FlagRow(BaseModel):
    """A row in FlagEmbedding's layout: its examples/finetune/embedder/README.md."""

    model_config = ConfigDict(extra="forbid")
    query: str
    pos: list[str]
    neg: list[str]
    pos_scores: list[float] | None = None
    neg_scores: list[float] | None = None


def test_flagembedding_rows_follow_its_layout(generated: Workspace, target: Path) -> None:
    export(generated, target, format="flagembedding")
    rows = [FlagRow.model_validate(row) for row in lines(target)]
    assert [(r.query, r.pos, len(r.neg)) for r in rows] == [
        ("query 0", [text(0)], 5),
        ("query 1", [text(1)], 2),
        ("query 1", [text(2)], 2),
    ]
    assert "pos_scores" not in lines(target)[0]
    export(generated, target, format="flagembedding", scores="dense")
    (scored,) = [FlagRow.model_validate(row) for row in lines(target)]
    assert (scored.pos_scores, scored.neg_scores) == ([0.8], [0.6, 0.5, 0.4, 0.6, 0.6])


@pytest.mark.parametrize("distil", [False, True])
def test_flagembedding_reads_it(generated: Workspace, target: Path, tmp_path: Path, distil: bool) -> None:
    pytest.importorskip("peft", reason="needs the packages FlagEmbedding and peft")
    flag = pytest.importorskip("FlagEmbedding.abc.finetune.embedder", reason="needs the package FlagEmbedding")
    from torch import distributed

    export(generated, target, format="flagembedding", scores="dense" if distil else None)
    arguments = flag.AbsEmbedderDataArguments(
        train_data=[str(target)], cache_path=str(tmp_path / "cache"), train_group_size=3, knowledge_distillation=distil
    )
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        loaded = flag.AbsEmbedderTrainDataset(arguments, tokenizer=None)
    finally:
        distributed.destroy_process_group()
    assert len(loaded) == (1 if distil else 3)
    query, passages, scores = loaded[0]
    assert (query, passages[0]) == ("query 0", text(0))
    assert set(passages[1:]) < {text(6), text(5), text(4), G1.text, G2.text}
    assert (scores is not None and scores[0] == 0.8) if distil else scores is None


class Message(BaseModel):
    """A chat message."""

    model_config = ConfigDict(extra="forbid")
    role: str
    content: str


class ChatRow(BaseModel):
    """A row in ms-swift's layout for InfoNCE: its docs/source_en/BestPractices/Embedding.md."""

    model_config = ConfigDict(extra="forbid")
    messages: list[Message]
    positive_messages: list[list[Message]]
    negative_messages: list[list[Message]]


def test_chat_rows_hold_mined_negatives_first(generated: Workspace, target: Path) -> None:
    export(generated, target, format="chat")
    first = ChatRow.model_validate(lines(target)[0])
    assert [m.content for m in first.messages] == ["query 0"]
    assert [[m.content for m in p] for p in first.positive_messages] == [[text(0)]]
    negatives = [message.content for (message,) in first.negative_messages]
    assert negatives == [text(6), text(5), text(4), G1.text, G2.text]
    assert {m.role for m in first.messages} == {"user"}


def test_parquet_has_every_source_and_score(generated: Workspace, target: Path) -> None:
    import datasets

    export(generated, target, format="parquet")
    loaded = datasets.load_dataset(str(target), split="train", cache_dir=str(target.parent / "cache"))
    first = loaded[0]
    assert [n["source"] for n in first["negatives"]] == ["mined"] * 3 + ["generated"] * 2
    assert [n["id"] for n in first["negatives"]] == ["p6", "p5", "p4", G1.id, G2.id]
    assert [n["cross_score"] for n in first["negatives"]] == [6.0, 5.0, 4.0, None, None]
    assert first["positive"] == {
        "id": "p0",
        "title": "Title 0",
        "text": "text 0 \u2028 ü",
        "dense_score": 0.8,
        "cross_score": 8.0,
    }
    assert loaded[1]["positive"]["dense_score"] is None


# Counts, order and memory


@pytest.mark.parametrize("name", FORMATS)
def test_every_pair_is_written_or_counted(generated: Workspace, target: Path, name: str) -> None:
    manifest = export(generated, target, format=name)
    assert ExportManifest.model_validate(yaml.safe_load((target / MANIFEST).read_text())) == manifest
    assert manifest.counts.rows_in == 4
    assert manifest.counts.rejected == sum(manifest.left_out.values())
    assert sorted(p.name for p in target.iterdir()) == sorted([MANIFEST, *manifest.files])
    assert sorted(manifest.inputs) == ["generate", "import", "mine"]


def test_parts_give_the_same_as_the_whole(generated: Workspace, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(generated, target, format="parquet")
    whole = pq.read_table(target / "train.parquet")
    monkeypatch.setattr(export_rows, "PART_PAIRS", 1)
    export(generated, target, format="parquet")
    assert pq.read_table(target / "train.parquet").equals(whole)


def test_without_generate_only_mined_ones_are_written_and_it_says_so(workspace: Workspace, target: Path) -> None:
    report = Reporter(io.StringIO())
    run(load_config(None, {"export.output": str(target), "export.format": "chat"}), workspace, report)
    assert [len(row["negative_messages"]) for row in lines(target)] == [3, 2, 2]
    assert "mined negatives only" in report.console.file.getvalue()  # type: ignore[attr-defined]


def test_a_workspace_in_an_object_store_is_exported_to_one(tmp_path: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    workspace = _fill(Workspace(f"{root}/ws"))
    manifest = export(workspace, f"{root}/out", format="chat")
    assert export(workspace, f"{root}/out", format="triplets").rows == 7  # takes the place of the first
    made = Workspace(f"{root}/out")
    assert made.list_files([""]) == [MANIFEST, "train.parquet"]
    assert manifest.files["train.jsonl"].bytes > 0
    made.remove("")


# Mistakes and faults


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"format": "chat", "scores": "dense"}, "no place for scores"),
        ({"format": "tevatron", "file_type": "parquet"}, "written as jsonl"),
        ({"max_negatives": 6}, "--max-negatives to 5"),
        ({"scores": "cross", "mined_per_query": 0}, "cross score"),
        ({"mined_per_query": 0, "generated_per_query": 0}, "None of the 4 train pairs"),
        ({"target": "nosuch://bucket/out"}, "nosuch://bucket/out"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing(
    generated: Workspace, target: Path, settings: dict[str, Any], part: str
) -> None:
    with pytest.raises(UserError) as error:
        export(generated, settings.pop("target", target), **settings)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not target.exists()


def test_only_an_earlier_export_is_replaced(workspace: Workspace, target: Path) -> None:
    target.mkdir()
    export(workspace, target, format="chat")  # an empty folder is no loss
    export(workspace, target, format="parquet")
    assert not (target / "train.jsonl").exists()
    (target / "notes").mkdir()
    (target / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="notes"):
        export(workspace, target)
    assert (target / "notes" / "mine.txt").read_text() == "keep"
    with pytest.raises(UserError, match=r"train\.parquet is a file"):
        export(workspace, target / "train.parquet")


@pytest.mark.parametrize("manifest", ["made_by: someone else", ": not yaml [", ""])
def test_a_folder_with_a_foreign_manifest_is_left_alone(workspace: Workspace, target: Path, manifest: str) -> None:
    target.mkdir()
    (target / MANIFEST).write_text(manifest)
    with pytest.raises(UserError, match=MANIFEST):
        export(workspace, target)
    assert (target / MANIFEST).read_text() == manifest


def test_a_full_disk_leaves_the_earlier_export(
    workspace: Workspace, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(workspace, target, format="chat")
    before = (target / "train.jsonl").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(UserError, match="No space left"):
        export(workspace, target, format="triplets")
    assert (target / "train.jsonl").read_bytes() == before
    assert sorted(p.name for p in target.parent.iterdir()) == ["out", "ws"]


# Width

ROWS = st.lists(
    st.builds(
        lambda m, g: RowIds("q", "p", tuple(f"m{i}" for i in range(m)), tuple(f"g{i}" for i in range(g))),
        st.integers(0, 6),
        st.integers(0, 4),
    ).filter(lambda row: size(row) > 0)
)


@given(ROWS, st.integers(1, 12))
def test_cut_rows_keep_the_first_of_each_source(rows: list[RowIds], most: int) -> None:
    for row in rows:
        kept = cut(row, most)
        assert size(kept) == min(most, size(row))
        assert row.mined[: len(kept.mined)] == kept.mined
        assert kept.generated == row.generated[:most]


@given(ROWS)
def test_no_other_width_keeps_more_negatives(rows: list[RowIds]) -> None:
    width = best_width(rows)
    kept = fit(rows, None, same_width=True)
    assert all(size(row) == width for row in kept)
    assert sum(map(size, kept)) == max((w * sum(size(r) >= w for r in rows) for w in range(11)), default=0)
    assert fit(rows, None, same_width=False) == rows


# False negatives


@pytest.mark.parametrize(
    ("how", "rows", "pairs"),
    [
        ("keep", [("query 0", 0, [6, 5, 4]), ("query 1", 1, [5, 6]), ("query 1", 2, [5, 6])], 4),
        ("remove", [("query 0", 0, [5]), ("query 1", 1, [5, 6]), ("query 1", 2, [5, 6])], 4),
        ("promote", [("query 0", 0, [5]), ("query 1", 1, [5, 6]), ("query 1", 2, [5, 6]), ("query 0", 6, [5])], 5),
    ],
)
def test_false_negatives_are_kept_removed_or_promoted(
    workspace: Workspace, target: Path, how: str, rows: list[Any], pairs: int
) -> None:
    write_relabelled(workspace, {("q0", "p6"): "answers", ("q0", "p4"): "partly", ("q1", "p5"): "no"})
    output = io.StringIO()
    flags = {"output": str(target), "format": "flagembedding", "false_negatives": how, "scores": "dense"}
    config = load_config(None, {f"export.{name}": value for name, value in flags.items()})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export_rows, "PART_PAIRS", 2)
        manifest = run(config, workspace, Reporter(output))
    scored = [row for row in rows if row[0] == "query 0"]  # nobody scored the positives of q1
    found = [(line["query"], line["pos"], line["neg"]) for line in lines(target)]
    assert found == [(query, [text(p)], [text(n) for n in negatives]) for query, p, negatives in scored]
    assert manifest.counts.rows_in == pairs
    left_out, promoted = (0 if how == "keep" else 2), int(how == "promote")
    assert manifest.false_negatives == {"left_out": left_out, "promoted": promoted}
    assert ("relabel" in manifest.inputs) == (how != "keep")
    assert ("2 mined passages are no negatives" in output.getvalue()) == (how != "keep")
    if how == "promote":
        assert lines(target)[1]["pos_scores"] == [0.6]
    manifest = export(workspace, target, format="flagembedding", false_negatives=how)
    found = [(line["query"], line["pos"], line["neg"]) for line in lines(target)]
    assert found == [(query, [text(p)], [text(n) for n in negatives]) for query, p, negatives in rows]


def test_promoted_positives_are_rows_of_every_format(workspace: Workspace, target: Path) -> None:
    write_relabelled(workspace, {("q0", "p6"): "answers"})
    for name in FORMATS:
        kept, promoted = (
            export(workspace, target, format=name, false_negatives=how, max_negatives=2)
            for how in ("remove", "promote")
        )
        assert promoted.counts.accepted == kept.counts.accepted + 1, name
