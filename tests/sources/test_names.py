"""Usual names are taken in any spelling; columns and files that are not used are named, printed and in the manifest."""

import gzip
import io
import itertools
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_samples import CORPUS, QUERIES, TEST, TRAIN, imported, lines, rows, texts, write_beir, zipped

from causalneg.console import Reporter
from causalneg.sources.names import CORPUS_NAMES, PAIR_NAMES, TOPIC_NAMES, usual_split
from causalneg.workspace import Manifest, Workspace

# Spellings of a name that are the same name.
SPELLINGS = {
    "as it is": str,
    "capitals": str.upper,
    "hyphens": lambda name: name.replace("_", "-"),
    "words": lambda name: name.replace("_", " ").title(),
    "camel case": lambda name: re.sub("(?<=[a-z])_(.)", lambda found: found[1].upper(), name),
}


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return pa.compress(content, "zstd", asbytes=True) if suffix == ".zst" else content


def pack(path: Path, suffix: str) -> Path:
    """Compress a file and give it the suffix of that."""
    target = path.with_name(path.name + suffix)
    target.write_bytes(packed(path.read_bytes(), suffix))
    path.unlink()
    return target


def shown(workspace: Workspace, source: Path, **flags: Any) -> tuple[Manifest, str]:
    report = Reporter(io.StringIO())
    made = imported(workspace, source, report, **flags)
    return made, report.console.file.getvalue()  # type: ignore[attr-defined]


# Columns


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_usual_name_of_negatives_is_taken(tmp_path: Path, workspace: Workspace, spelling: str) -> None:
    names = PAIR_NAMES["negative"]
    table = [{"query": f"q{n}", "positive": "p", SPELLINGS[spelling](name): ["n", "m"]} for n, name in enumerate(names)]
    (tmp_path / "pairs.jsonl").write_text(lines(table))
    made = imported(workspace, tmp_path / "pairs.jsonl", import__test_share=0.0)
    assert texts(workspace) == [
        (f"q{n}", text, score, "train") for n in range(len(names)) for text, score in (("p", 1), ("n", 0), ("m", 0))
    ]
    assert made.details["columns_not_used"] == {}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_usual_name_of_query_and_positive_is_taken(tmp_path: Path, workspace: Workspace, spelling: str) -> None:
    named = list(itertools.product(PAIR_NAMES["query"], PAIR_NAMES["positive"]))
    spell = SPELLINGS[spelling]
    table = [{spell(positive): f"p{n}", spell(query): f"q{n}"} for n, (query, positive) in enumerate(named)]
    (tmp_path / "pairs.jsonl").write_text(lines(table))
    imported(workspace, tmp_path / "pairs.jsonl", import__test_share=0.0)
    assert texts(workspace) == [(f"q{n}", f"p{n}", 1, "train") for n in range(len(named))]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_usual_name_of_a_corpus_and_its_queries_is_taken(
    tmp_path: Path, workspace: Workspace, spelling: str
) -> None:
    spell = SPELLINGS[spelling]

    def table(names: Mapping[str, Any]) -> list[dict[str, str]]:
        both = itertools.product(names["id"], names["text"])
        return [{spell(i): f"id{n}", spell(text): f"text {n}"} for n, (i, text) in enumerate(both)]

    corpus, queries = table(CORPUS_NAMES), table(TOPIC_NAMES)
    qrels = "".join(f"id{n}\tid0\t1\n" for n in range(len(queries)))
    imported(workspace, write_beir(tmp_path / "beir", corpus, queries, {"train": qrels}))
    assert [(p.id, p.text) for p in rows(workspace)[0]] == [(f"id{n}", f"text {n}") for n in range(len(corpus))]
    assert [(q.id, q.text) for q in rows(workspace)[1]] == [(f"id{n}", f"text {n}") for n in range(len(queries))]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_numbered_columns_are_taken_in_the_order_of_their_numbers(
    tmp_path: Path, workspace: Workspace, kind: str
) -> None:
    row = {"Query": "q", "positive_2": "p2", "positive_1": "p1", "neg10": "n10", "Neg2": "n2", "hard_negative_1": "n1"}
    path = tmp_path / f"pairs.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(lines([row]) if kind == "jsonl" else f"{','.join(row)}\n{','.join(row.values())}\n")
    made = imported(workspace, path, import__test_share=0.0)
    assert [(text, score) for _, text, score, _ in texts(workspace)] == [
        *(("p1", 1), ("p2", 1)),
        *(("n1", 0), ("n2", 0), ("n10", 0)),
    ]
    assert made.details["columns_not_used"] == {}


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_columns_not_used_are_named(tmp_path: Path, workspace: Workspace, kind: str) -> None:
    table = [
        {"query": f"q{n}", "positive": f"p{n}", "answer": "a", "Hardness": "7", "title": "", "negative": "n"}
        for n in range(3)
    ]
    path = tmp_path / f"pairs.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    elif kind in ("jsonl", "json"):
        path.write_text(lines(table) if kind == "jsonl" else json.dumps(table))
    else:
        mark = "," if kind == "csv" else "\t"
        path.write_text("".join(mark.join(cells) + "\n" for cells in [table[0], *(row.values() for row in table)]))
    made, printed = shown(workspace, path)
    assert {name: sorted(columns) for name, columns in made.details["columns_not_used"].items()} == {
        str(path): ["Hardness", "answer"]
    }, "not the title, in which there is nothing"
    assert "columns not used: " in printed
    assert "Hardness" in printed


def test_a_column_of_some_rows_is_named_and_an_empty_one_is_not(tmp_path: Path, workspace: Workspace) -> None:
    corpus = [{**row, "url": "", "lang": None} for row in CORPUS]
    corpus[2]["url"] = "x"
    queries = [{**row, "metadata": {}} for row in QUERIES]
    made = imported(workspace, write_beir(tmp_path / "beir", corpus, queries, {"train": TRAIN}))
    assert made.details["columns_not_used"] == {str(tmp_path / "beir" / "corpus.jsonl"): ["url"]}


def test_columns_of_a_chat_and_of_a_saved_folder_are_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    chat = [{"messages": [{"role": "user", "content": "q"}], "images": ["x"]}]
    chat[0]["positive_messages"] = [[{"role": "user", "content": "p"}]]  # type: ignore[list-item]
    (tmp_path / "chat.jsonl").write_text(lines(chat))
    made = imported(Workspace(str(tmp_path / "a")), tmp_path / "chat.jsonl")
    assert made.details["columns_not_used"] == {str(tmp_path / "chat.jsonl"): ["images"]}
    datasets.Dataset.from_list([{"anchor": "q", "positive": "p", "score": 0.5}]).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "notes.txt").write_text("n")
    made = imported(Workspace(str(tmp_path / "b")), tmp_path / "saved")
    assert made.details["columns_not_used"] == {str(tmp_path / "saved"): ["score"]}
    assert made.details["files_not_read"] == ["notes.txt"]


def test_the_users_names_are_taken_as_they_are_written(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines([{"query": "q", "Ask": "a", "positive": "p", "negative": "n", "wrong": "w"}]))
    fields = {"query": "Ask", "negative": ["wrong"]}
    made = imported(workspace, path, import__fields=fields, import__test_share=0.0)
    assert texts(workspace) == [("a", "p", 1, "train"), ("a", "w", 0, "train")]
    assert made.details["columns_not_used"] == {str(path): ["query", "negative"]}


def test_usual_splits_are_found_in_any_case(tmp_path: Path, workspace: Workspace) -> None:
    assert [usual_split(n) for n in ("Train", "TEST", "Dev", "MySplit")] == ["train", "test", "dev", "MySplit"]
    folder = write_beir(tmp_path / "beir", CORPUS, QUERIES, {"Train": TRAIN, "Test": TEST})
    assert imported(workspace, folder).details["splits"] == {"test": 1, "train": 4}
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(lines([{"query": "a", "positive": "p", "Split": "TRAIN"}]))
    assert imported(workspace, pairs).details["splits"] == {"train": 1}


def test_without_a_split_called_train_it_is_said(tmp_path: Path, workspace: Workspace) -> None:
    _, printed = shown(workspace, write_beir(tmp_path / "beir", CORPUS, QUERIES, {"training": TRAIN}))
    assert "There is no split called train" in printed
    assert "there is training" in printed


# Files


def test_files_not_read_are_named(beir: Path, workspace: Workspace) -> None:
    (beir / "qrels" / "train.trec").write_text("q0 0 d1 1\n")
    (beir / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(b"x"))
    (beir / "README.md").write_text("about")
    for hidden in (".DS_Store", "qrels/._train.tsv", ".git/config", "__MACOSX/corpus.jsonl"):
        (beir / hidden).parent.mkdir(exist_ok=True)
        (beir / hidden).write_text("x")
    made, printed = shown(workspace, beir)
    assert made.details["files_not_read"] == ["README.md", "qrels/test.tsv.gz", "qrels/train.trec"]
    assert "files not read: README.md, qrels/test.tsv.gz, qrels/train.trec" in printed
    assert made.details["splits"] == {"test": 1, "train": 4}


def test_a_second_data_set_in_a_zip_is_named_and_hidden_files_are_skipped(beir: Path, workspace: Workspace) -> None:
    path = zipped(beir, "one/")
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("__MACOSX/corpus.jsonl", "one/qrels/._train.tsv", ".DS_Store"):
            archive.writestr(name, "x")
        for file in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
            archive.write(beir / file, f"two/{file}")
    made, printed = shown(workspace, path)
    assert made.details["splits"] == {"test": 1, "train": 4}
    assert made.details["files_not_read"] == ["two/corpus.jsonl", "two/queries.jsonl", "two/qrels/test.tsv"]
    assert "files not read: two/corpus.jsonl" in printed


# Compression


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("layout", ["folder", "zip"])
def test_every_file_of_a_folder_may_be_compressed(beir: Path, tmp_path: Path, suffix: str, layout: str) -> None:
    plain, other = Workspace(str(tmp_path / "plain")), Workspace(str(tmp_path / "packed"))
    imported(plain, beir)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        pack(beir / name, suffix)
    made = imported(other, beir if layout == "folder" else zipped(beir, "x/"))
    assert rows(plain) == rows(other)
    assert made.details["files_not_read"] == []


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    "topics",
    [
        "<top>\n<num> Number: 7\n<title> what is it\n</top>\n",
        '<topics><topic number="7"><query>what is it</query></topic></topics>',
        "7\twhat is it\n",
        "question\tquery_id\nwhat is it\t7\n",
    ],
)
def test_corpus_topics_and_judgements_of_trec_may_be_compressed(
    tmp_path: Path, workspace: Workspace, topics: str, suffix: str
) -> None:
    for name, content in (("corpus.jsonl", lines(CORPUS)), ("topics.tsv", topics), ("qrels.txt", "7 0 d1 1\n")):
        (tmp_path / name).write_text(content)
    corpus, asked, judged = (pack(tmp_path / name, suffix) for name in ("corpus.jsonl", "topics.tsv", "qrels.txt"))
    imported(workspace, corpus, import__topics={"test": str(asked)}, import__qrels={"test": str(judged)})
    assert [(q.id, q.text) for q in rows(workspace)[1]] == [("7", "what is it")]
    assert [(q.query_id, q.passage_id) for q in rows(workspace)[2]] == [("7", "d1")]


@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv"])
def test_compression_is_told_by_the_content_and_not_by_the_name(tmp_path: Path, kind: str) -> None:
    table = [{"query": f"q{n}", "positive": f"p{n}"} for n in range(300)]
    mark = "\t" if kind == "tsv" else ","
    separated = "".join(mark.join(cells) + "\n" for cells in [table[0], *(row.values() for row in table)])
    content = {"json": json.dumps(table), "csv": separated, "tsv": separated}.get(kind, lines(table)).encode()
    for name, written in (
        (f"gzip.{kind}", packed(content, ".gz")),
        (f"zstd.{kind}.gz", packed(content, ".zst")),
        (f"plain.{kind}.gz", content),
        (f"plain.{kind}.zst", content),
    ):
        (tmp_path / name).write_bytes(written)
        workspace = Workspace(str(tmp_path / f"ws-{name}"))
        assert imported(workspace, tmp_path / name).details["rows"]["pairs"]["accepted"] == 300, name
