"""Every layout that the import reads gives the rows that stand in it, whatever its format and compression."""

import csv
import datetime
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_samples import CORPUS, imported, lines, outcomes, rejected, rows, texts, write_beir

from causalneg.errors import UserError
from causalneg.records import Passage, Query
from causalneg.workspace import Workspace

PAIRS = [
    {"query": "who, «ü» ?", "positive": "P one, with comma", "negative_1": "N one", "negative_2": 'N "two"'},
    {"query": "b", "positive": "P two", "negative_1": "P one, with comma", "negative_2": None},
    {"query": "b", "positive": "P three", "negative_1": None, "negative_2": None},
]
JUDGED = [
    ("who, «ü» ?", "P one, with comma", 1, "train"),
    ("who, «ü» ?", "N one", 0, "train"),
    ("who, «ü» ?", 'N "two"', 0, "train"),
    ("b", "P two", 1, "train"),
    ("b", "P one, with comma", 0, "train"),
    ("b", "P three", 1, "train"),
]


def write_table(path: Path, table: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the file's name asks for."""
    plain = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    if plain.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), plain)
    elif plain.suffix == ".json":
        plain.write_text(json.dumps(table, indent=2))
    elif plain.suffix == ".jsonl":
        plain.write_text(lines(table), encoding="utf-8")
    elif plain.suffix == ".tsv":
        content = [list(table[0])] + [["" if v is None else v for v in row.values()] for row in table]
        plain.write_text("".join("\t".join(cells) + "\n" for cells in content), encoding="utf-8")
    else:
        with plain.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    content = plain.read_bytes()
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(content)
    return path


FORMATS = ["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "jsonl.zst", "csv.gz", "tsv.zst", "json.gz"]


@pytest.mark.parametrize("name", FORMATS)
def test_triples_in_every_format(tmp_path: Path, workspace: Workspace, name: str) -> None:
    made = imported(workspace, write_table(tmp_path / f"pairs.{name}", PAIRS), import__test_share=0.0)
    assert texts(workspace) == JUDGED
    assert made.details["rows"]["pairs"]["accepted"] == 3
    assert outcomes(made) == {"repeated": 2}, "the passage that comes again, and the query"


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_a_field_mapping(tmp_path: Path, workspace: Workspace, name: str) -> None:
    table = [{"claim": "c", "evidence": "E", "refuted_by": "R", "query": "no", "positive": "no"}]
    fields = {"query": "claim", "positive": "evidence", "negative": ["refuted_by"]}
    imported(workspace, write_table(tmp_path / f"data.{name}", table), import__fields=fields, import__test_share=0.0)
    assert texts(workspace) == [("c", "E", 1, "train"), ("c", "R", 0, "train")]


def test_columns_by_number_where_there_is_no_header(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "triples.tsv").write_text('"q1"\tp1\tn1\nq2\tp2\tn2\n')
    fields = {"query": 1, "positive": 2, "negative": 3}
    imported(workspace, tmp_path / "triples.tsv", import__fields=fields, import__test_share=0.0)
    assert texts(workspace) == [
        ('"q1"', "p1", 1, "train"),
        ('"q1"', "n1", 0, "train"),
        ("q2", "p2", 1, "train"),
        ("q2", "n2", 0, "train"),
    ]


LISTS = {
    "FlagEmbedding": {"query": "q", "pos": ["p1", "p2"], "neg": ["n"]},
    "a string is one negative": {"anchor": "q", "positive": ["p1", "p2"], "negative": "n"},
    "Tevatron": {
        "query_id": "1",
        "query": "q",
        "positive_passages": [{"docid": "x", "title": "", "text": "p1"}, {"docid": "y", "title": "", "text": "p2"}],
        "negative_passages": [{"docid": "z", "title": "", "text": "n"}],
    },
    "DPR": {"question": "q", "answers": ["a"], "positive_ctxs": [{"text": "p1"}, {"text": "p2"}], "negative": ["n"]},
    "chat": {
        "messages": [{"role": "user", "content": "q"}],
        "positive_messages": [[{"role": "user", "content": "p1"}], [{"role": "user", "content": "p2"}]],
        "negative_messages": [[{"role": "user", "content": "n"}]],
    },
    "chat in parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
        "positive_messages": [[{"role": "user", "content": "p1"}], [{"role": "user", "content": "p2"}]],
        "negative_messages": [{"role": "user", "content": "n"}],
    },
}


@pytest.mark.parametrize("layout", LISTS)
@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_lists_of_positives_and_negatives(tmp_path: Path, workspace: Workspace, layout: str, name: str) -> None:
    imported(workspace, write_table(tmp_path / f"data.{name}", [LISTS[layout]]), import__test_share=0.0)
    assert texts(workspace) == [("q", "p1", 1, "train"), ("q", "p2", 1, "train"), ("q", "n", 0, "train")]


def test_the_system_message_of_a_chat_stands_before_the_users(tmp_path: Path, workspace: Workspace) -> None:
    messages = [{"role": "system", "content": "Find it."}, {"role": "user", "content": "q"}]
    row = {"messages": messages, "positive_messages": [[{"role": "user", "content": "p"}]]}
    imported(workspace, write_table(tmp_path / "chat.jsonl", [row]))
    assert rows(workspace)[1][0].text == "Find it. q"


@pytest.mark.parametrize("splits", [None, ["train", "validation"]])
def test_a_folder_of_save_to_disk(tmp_path: Path, workspace: Workspace, splits: list[str] | None) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"anchor": r["query"], **r, "unused": [1.5]} for r in PAIRS])
    saved = table if splits is None else datasets.DatasetDict(dict.fromkeys(splits, table))
    saved.save_to_disk(str(tmp_path / "saved"))
    made = imported(workspace, tmp_path / "saved", import__test_share=0.0)
    found = texts(workspace)
    for split in splits or ["train"]:
        assert [j for j in found if j[3] == split] == [(*judged[:3], split) for judged in JUDGED]
    assert made.details["splits"] == dict.fromkeys(splits or ["train"], 2)


def test_a_damaged_folder_of_save_to_disk_is_named(tmp_path: Path, workspace: Workspace) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(PAIRS).save_to_disk(str(tmp_path / "saved"))
    (file,) = (tmp_path / "saved").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="saved"):
        imported(workspace, tmp_path / "saved")


TOPICS = {
    "tsv": "7\twhat is it\n8\tand that\n",
    "header.tsv": "query_id\ttext\n7\twhat is it\n8\tand that\n",
    "jsonl": '{"qid": 7, "query": "what is it"}\n{"qid": "8", "query": "and that"}\n',
    "top": "<top>\n<num> Number: 7 </num>\n<title> what\nis it</title>\n\n<desc> Description:\nlong\n\n"
    "<narr> Narrative:\nlonger\n</top>\n\n<top>\n<num> Number: 8\n<title> and that\n<desc> Description:\nx\n"
    "<narr> Narrative:\ny\n</top>\n",
    "xml": '<topics><topic number="7"><query>what is it</query></topic>'
    '<topic number="8"><query>and that</query></topic></topics>',
}
CORPORA = {
    "jsonl": lines({"docid": str(p["_id"]), "title": p.get("title"), "contents": p["text"]} for p in CORPUS),
    "tsv": "id\ttitle\ttext\n" + "".join(f"{p['_id']}\t{p.get('title', '')}\t{p['text']}\n" for p in CORPUS),
}
QRELS = {
    "trec": "7 0 d1 2\n8 Q0 3 1\n7\t0\td2\t-1\n",
    "beir": "query-id\tcorpus-id\tscore\n7\td1\t2\n8\t3\t1\n7\td2\t-1\n",
}


@pytest.mark.parametrize(
    ("corpus", "topics", "qrels"),
    [("jsonl", name, "trec") for name in TOPICS] + [("tsv", "tsv", "trec"), ("jsonl", "tsv", "beir")],
)
def test_trec(tmp_path: Path, workspace: Workspace, corpus: str, topics: str, qrels: str) -> None:
    source = tmp_path / f"corpus.{corpus}"
    source.write_text(CORPORA[corpus], encoding="utf-8")
    (tmp_path / f"topics.{topics}").write_text(TOPICS[topics])
    (tmp_path / "qrels.txt").write_text(QRELS[qrels])
    imported(
        workspace,
        source,
        import__topics={"test": str(tmp_path / f"topics.{topics}")},
        import__qrels={"test": str(tmp_path / "qrels.txt")},
    )
    assert [p.id for p in rows(workspace)[0]] == ["d1", "d2", "3"]
    assert rows(workspace)[1] == [Query(id="7", text="what is it"), Query(id="8", text="and that")]
    assert [(q.query_id, q.passage_id, q.score, q.split) for q in rows(workspace)[2]] == [
        ("7", "d1", 2, "test"),
        ("8", "3", 1, "test"),
        ("7", "d2", -1, "test"),
    ]


def test_trec_splits_may_share_their_topics_and_the_corpus_have_no_header(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "collection.tsv").write_text("0\tFirst.\n1\tSecond.\n")
    (tmp_path / "topics.tsv").write_text(TOPICS["tsv"])
    (tmp_path / "a.txt").write_text("7 0 0 1\n")
    (tmp_path / "b.txt").write_text("8 0 1 1\n")
    made = imported(
        workspace,
        tmp_path / "collection.tsv",
        import__fields={"id": 1, "text": 2},
        import__topics=dict.fromkeys(("train", "test"), str(tmp_path / "topics.tsv")),
        import__qrels={"train": str(tmp_path / "a.txt"), "test": str(tmp_path / "b.txt")},
    )
    assert rows(workspace)[0] == [Passage(id="0", text="First."), Passage(id="1", text="Second.")]
    assert made.details["splits"] == {"test": 1, "train": 1}
    assert outcomes(made) == {}


@pytest.mark.parametrize(
    ("content", "part"),
    [("<top>\n<title> no number\n</top>\n", "topics"), ("<topics><topic>", "topics"), ("<top>\n", "No query")],
)
def test_broken_topics_are_named(tmp_path: Path, workspace: Workspace, content: str, part: str) -> None:
    (tmp_path / "corpus.jsonl").write_text(lines(CORPUS))
    (tmp_path / "topics").write_text(content)
    (tmp_path / "qrels").write_text("7 0 d1 1\n")
    flags = {f"import__{name}": {"test": str(tmp_path / name)} for name in ("topics", "qrels")}
    with pytest.raises(UserError, match=part):
        imported(workspace, tmp_path / "corpus.jsonl", **flags)


IRDS = """
import io, json, sys
from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.sources.run import run
from causalneg.workspace import Workspace
try:
    made = run(load_config(flags={"import.source": sys.argv[1]}), Workspace(sys.argv[2]), Reporter(io.StringIO()))
    print(json.dumps(made.details))
except UserError as error:
    print(json.dumps(str(error)))
"""


def from_irds(source: str, workspace: Path, home: Path) -> Any:  # noqa: ANN401 - details, or an error's message
    """Import in a process of its own: ir_datasets reads its settings when it is first imported."""
    own = {"IR_DATASETS_HOME": str(home), "IR_DATASETS_DL_TRIES": "1"}
    closed = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", IRDS, source, str(workspace)],
        env={**os.environ, **own, **closed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_ir_datasets_gives_what_the_zip_gives(shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "irds" / "beir" / "nfcorpus" / "source.zip"
    source.parent.mkdir(parents=True)
    shutil.copy(shared_data / "nfcorpus.zip", source)
    zipped, whole, test = (Workspace(str(tmp_path / name)) for name in ("zipped", "whole", "test"))
    expected = imported(zipped, shared_data / "nfcorpus.zip").details
    details = from_irds("irds:beir/nfcorpus", Path(whole.root), tmp_path / "irds")
    assert details["splits"] == expected["splits"] == {"dev": 324, "test": 323, "train": 2590}
    assert details["passages"] == expected["passages"] == 3633
    one, other = rows(zipped), rows(whole)
    assert one[0] == other[0]
    assert sorted(one[1], key=lambda q: q.id) == sorted(other[1], key=lambda q: q.id)
    assert {tuple(q.model_dump().items()) for q in one[2]} == {tuple(q.model_dump().items()) for q in other[2]}
    details = from_irds("irds:beir/nfcorpus/test", Path(test.root), tmp_path / "irds")
    assert details["splits"] == {"test": 323}
    assert {q.id for q in rows(test)[1]} == {q.query_id for q in one[2] if q.split == "test"}


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("irds:beir/nfcorpsu/test", ["'beir/nfcorpsu/test'", "did you mean irds:beir/nfcorpus/test"]),
        ("irds:beir/nfcorpus/test", ["cannot give irds:beir/nfcorpus/test"]),
        ("irds:beir/nfcorpus/test,beir/scifact/test", ["different passages"]),
        ("irds:", ["names no data set"]),
    ],
)
def test_what_ir_datasets_cannot_give_is_named(tmp_path: Path, source: str, parts: list[str]) -> None:
    message = from_irds(source, tmp_path / "ws", tmp_path / "irds")
    assert isinstance(message, str)
    for part in parts:
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({"import__fields": {"qury": "a"}}, "no field 'qury'.*did you mean 'query'"),
        ({"import__fields": {"query": "qestion"}}, "no column 'qestion'.*did you mean 'question'"),
        ({"import__fields": {"query": 1, "positive": "context"}}, "by name or all by number"),
        ({"import__topics": {"test": "x"}}, "go together"),
        ({"import__source": "embedded:sample", "import__qrels": {"test": "x"}}, "for your own files, not for embedded"),
        ({"import__qrels": {"test": "x"}}, "go together"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, workspace: Workspace, flags: dict[str, Any], part: str) -> None:
    path = write_table(tmp_path / "data.csv", [{"question": "q", "context": "c"}])
    with pytest.raises(UserError, match=part):
        imported(workspace, flags.pop("import__source", path), **flags)


def test_a_pair_of_columns_with_one_name_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "data.csv").write_text("query,positive,query\na,b,c\n")
    with pytest.raises(UserError, match="two columns are called 'query'"):
        imported(workspace, tmp_path / "data.csv")


def test_a_beir_folder_may_have_other_names(tmp_path: Path, workspace: Workspace) -> None:
    corpus = [{"key": "a", "heading": "H", "abstract": "A"}]
    folder = write_beir(tmp_path / "beir", corpus, [{"key": "q", "abstract": "Q"}], {"test": "q\ta\t1\n"})
    imported(workspace, folder, import__fields={"id": "key", "title": "heading", "text": "abstract"})
    assert rows(workspace)[0] == [Passage(id="a", title="H", text="A")]


def test_a_row_that_is_cut_off_in_a_csv_swallows_no_other_silently(tmp_path: Path, workspace: Workspace) -> None:
    good = "".join(f"q{n},p{n}\n" for n in range(20))
    (tmp_path / "data.csv").write_text("query,positive\n" + good + '"open,p\n' + good)
    imported(workspace, tmp_path / "data.csv", import__max_rejected_share=0.5)
    (left_out,) = rejected(workspace)
    assert (left_out.line, left_out.kind) == (22, "invalid_row")
    assert "lines 22 to 42" in left_out.reason


METADATA = [
    {"_id": "a", "text": "one", "metadata": {"year": 1969, "by": {"name": "N. A."}, "a": [True, "ü"]}},
    {"_id": "b", "text": "two", "metadata": {}},
    {"_id": "c", "text": "three", "metadata": None},
    {"_id": "d", "text": "four"},
    {"_id": "e", "text": "five", "metadata": '{"year": 1970}'},
]
JUDGED_A = {"train": "query-id\tcorpus-id\tscore\nq\ta\t1\n"}


def metadata_of(workspace: Workspace) -> dict[str, str]:
    return {p.id: p.metadata for p in rows(workspace)[0]}


def test_metadata_is_kept_as_the_text_of_an_object(tmp_path: Path, workspace: Workspace) -> None:
    imported(workspace, write_beir(tmp_path / "beir", METADATA, [{"_id": "q", "text": "?"}], JUDGED_A))
    found = metadata_of(workspace)
    assert found["a"] == '{"a":[true,"ü"],"by":{"name":"N. A."},"year":1969}', "names sorted, no spaces"
    assert (found["b"], found["c"], found["d"], found["e"]) == ("", "", "", '{"year":1970}')


def test_metadata_of_a_column_that_the_user_names(tmp_path: Path, workspace: Workspace) -> None:
    when = datetime.date(1969, 7, 20)
    table = [{"id": "a", "text": "one", "meta": {"on": when, "n": 2.5}}, {"id": "b", "text": "two", "meta": None}]
    corpus = write_table(tmp_path / "corpus.parquet", table)
    (tmp_path / "topics.tsv").write_text("q\t?\n")
    (tmp_path / "qrels.tsv").write_text("q 0 a 1\n")
    split = {"import__topics": {"train": str(tmp_path / "topics.tsv")}}
    split |= {"import__qrels": {"train": str(tmp_path / "qrels.tsv")}}
    imported(workspace, corpus, import__fields={"metadata": "meta"}, **split)
    assert metadata_of(workspace) == {"a": '{"n":2.5,"on":"1969-07-20"}', "b": ""}


@pytest.mark.parametrize("value", ["Wikipedia", [1], 7, True, "[1]", '{"x": '])
def test_metadata_that_is_no_object_is_rejected_unless_it_is_left_out(
    tmp_path: Path, workspace: Workspace, value: object
) -> None:
    corpus = [*METADATA, {"_id": "z", "text": "six", "metadata": value}]
    folder = write_beir(tmp_path / "beir", corpus, [{"_id": "q", "text": "?"}], JUDGED_A)
    made = imported(workspace, folder, import__max_rejected_share=0.5)
    assert outcomes(made)["wrong_metadata"] == 1
    (row,) = rejected(workspace)
    assert row.line == 6
    assert "import.fields={metadata: []}" in row.reason

    imported(workspace, folder, import__fields={"metadata": []})
    assert set(metadata_of(workspace).values()) == {""}
    assert "z" in metadata_of(workspace)


def test_metadata_changes_no_id_and_no_text(tmp_path: Path, workspace: Workspace) -> None:
    with_metadata, without = METADATA[0], {k: v for k, v in METADATA[0].items() if k != "metadata"}
    corpora = []
    for name, row in (("one", with_metadata), ("two", without)):
        imported(workspace, write_beir(tmp_path / name, [row], [{"_id": "q", "text": "?"}], JUDGED_A))
        corpora.append([(p.id, p.full_text) for p in rows(workspace)[0]])
    assert corpora[0] == corpora[1]


def test_a_corpus_without_the_column_is_still_read(tmp_path: Path, workspace: Workspace) -> None:
    imported(workspace, write_beir(tmp_path / "beir", METADATA, [{"_id": "q", "text": "?"}], JUDGED_A))
    (name,) = workspace.list_files(["corpus"], ".parquet")
    workspace.write_table(name, workspace.read_table(name, ["id", "title", "text"]))
    assert metadata_of(workspace) == dict.fromkeys("abcde", "")
    workspace.write_table(name, workspace.read_table(name, ["id", "title"]))
    with pytest.raises(UserError, match="another version of causalneg"):
        rows(workspace)
