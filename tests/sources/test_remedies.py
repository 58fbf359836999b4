"""A file of another form than its name says is read, or a sentence says what it is and what to give instead."""

import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_samples import CORPUS, QUERIES, TRAIN, imported, lines, texts, write_beir, zipped

from causalneg.cli import COMMANDS, main
from causalneg.errors import UserError
from causalneg.workspace import Workspace

PAIRS = [{"query": f"q {n}, «ü»", "positive": f"p {n}"} for n in range(4)]
READ = [(f"q {n}, «ü»", f"p {n}", 1, "train") for n in range(4)]


def refused(source: Path, **flags: object) -> str:
    with pytest.raises(UserError) as caught:
        imported(Workspace(str(source.parent / "ws")), source, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", "query;positive\n" + "".join(f'"{r["query"]}";{r["positive"]}\n' for r in PAIRS)),
        ("bars.csv", "query|positive\n" + "".join(f"{r['query']}|{r['positive']}\n" for r in PAIRS)),
        ("tabs.csv", "query\tpositive\n" + "".join(f"{r['query']}\t{r['positive']}\n" for r in PAIRS)),
        ("commas.tsv", "query,positive\n" + "".join(f'"{r["query"]}",{r["positive"]}\n' for r in PAIRS)),
        ("lines.ndjson", lines(PAIRS)),
        ("lines.json", lines(PAIRS)),
        ("data.json", json.dumps({"data": PAIRS})),
        ("rows.json", json.dumps({"version": "1", "info": {"data": 1}, "rows": PAIRS}, indent=2)),
        ("last.json", json.dumps({"data": PAIRS, "count": 4}, ensure_ascii=False)),
    ],
)
def test_another_form_is_read(tmp_path: Path, workspace: Workspace, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    imported(workspace, tmp_path / name, import__test_share=0.0)
    assert texts(workspace) == READ


def test_lines_with_a_list_called_data_are_lines(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "pairs.json").write_text(lines({**row, "data": [{"x": 1}]} for row in PAIRS), encoding="utf-8")
    made = imported(workspace, tmp_path / "pairs.json", import__test_share=0.0)
    assert texts(workspace) == READ
    assert made.details["columns_not_used"] == {str(tmp_path / "pairs.json"): ["data"]}


def test_a_beir_folder_of_ndjson_is_read(beir: Path, workspace: Workspace) -> None:
    for name in ("corpus", "queries"):
        (beir / f"{name}.jsonl").rename(beir / f"{name}.ndjson")
    assert imported(workspace, beir).details["passages"] == 3


# What is named


def excel() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", excel(), "a zip file .*; unpack it first, or save it as CSV"),
        ("a.jsonl.gz", excel(), "a zip file"),
        ("a.jsonl", b"BZh91AY&SY\x01", "compressed with bzip2; unpack it first"),
        ("a.jsonl.gz", b"\xfd7zXZ\x00\x01", "compressed with xz"),
        ("a.tsv", b"%PDF-1.7", "a PDF"),
        ("a.jsonl", b"\n<!DOCTYPE html><title>404", "a web page, as of a failed download; download the file anew"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "the pointer of Git LFS .*git lfs pull"),
        ("a.jsonl.gz", b"\xff\xfe\x00\x01", "cannot be read .*is the file whole"),
        ("a.jsonl", b'[\n{"query": "a", "positive": "p"}\n]', "name it .json if it is one array"),
        ("a.jsonl.bz2", b"x", "unpack it or convert it"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=part):
        imported(Workspace(str(tmp_path / "ws")), tmp_path / name)


def test_data_one_folder_deeper_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "data" / "en" / "beir"
    inner.parent.mkdir(parents=True)
    write_beir(inner, CORPUS, QUERIES, {"train": TRAIN})
    message = refused(tmp_path / "data")
    assert "data/corpus.jsonl does not exist" in message
    assert f"A data set is in {inner}; give --source {inner}." in message
    assert imported(Workspace(str(tmp_path / "ws")), Path(message.split("--source ")[1][:-1])).details["passages"] == 3


def test_a_saved_folder_and_triviaqa_one_folder_deeper_are_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "saved").mkdir(parents=True)
    (tmp_path / "a" / "saved" / "dataset_info.json").write_text("{}")
    assert f"give --source {tmp_path / 'a' / 'saved'}" in refused(tmp_path / "a")
    for name in ("qa/wikipedia-dev.json", "evidence/wikipedia/A.txt"):
        (tmp_path / "b" / "rc" / name).parent.mkdir(parents=True)
        (tmp_path / "b" / "rc" / name).write_text("x")
    assert f"give --source {tmp_path / 'b' / 'rc'}" in refused(tmp_path / "b")


def test_files_in_a_folder_or_zip_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    assert "Nothing is in it." in refused(folder)
    (folder / "notes.md").write_text("n")
    assert "There is notes.md." in refused(folder)
    for name in ("train.jsonl", "test.jsonl"):
        (folder / name).write_text(lines(PAIRS))
    assert f"give a file of rows itself, as --source {folder / 'test.jsonl'}" in refused(folder)
    message = refused(zipped(folder, "x/"))
    assert "It holds x/test.jsonl, x/train.jsonl; unpack it" in message


def test_a_zip_in_a_zip_or_a_folder_is_named(beir: Path, tmp_path: Path) -> None:
    inner = zipped(beir, "")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "sets/inner.zip")
    assert "It holds sets/inner.zip; unpack it" in refused(tmp_path / "outer.zip")
    (tmp_path / "folder").mkdir()
    inner.rename(tmp_path / "folder" / "inner.zip")
    assert f"give a zip itself, as --source {tmp_path / 'folder' / 'inner.zip'}" in refused(tmp_path / "folder")


def test_queries_or_judgements_that_are_missing_are_named_with_what_is_there(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").rename(beir / "qrels" / "train.dat")
    (beir / "qrels" / "test.tsv").unlink()
    message = refused(beir)
    assert "qrels holds no .tsv file" in message
    (beir / "queries.jsonl").rename(beir / "questions.jsonl")
    assert "corpus.jsonl, questions.jsonl" in refused(beir)


def test_a_parquet_file_that_is_compressed_once_more_is_one_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(PAIRS), tmp_path / "a.parquet")
    (tmp_path / "a.parquet.zst").write_bytes(pa.compress((tmp_path / "a.parquet").read_bytes(), "zstd", asbytes=True))
    assert "a.parquet.zst" in refused(tmp_path / "a.parquet.zst")


# Workspaces

WORKING = [c for c in COMMANDS if c not in ("import", "run", "demo", "keys", "compare")]


@pytest.mark.parametrize("command", WORKING)
def test_a_mistyped_workspace_is_not_made(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-workspace").mkdir()
    assert main([command, "--workspace", "my-workspaec"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "There is no workspace my-workspaec" in line
    assert "'my-workspace'" in line or command == "inspect"
    assert [path.name for path in tmp_path.iterdir()] == ["my-workspace"]


def test_compare_makes_no_workspace_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "base", "trained", "--workspace", "typo"]) == 2
    assert list(tmp_path.iterdir()) == []
