"""Whatever stands in the files: either one sentence for the user, or counts that add up and are those of the file."""

import csv
import gzip
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from source_samples import imported, lines

from causalneg.errors import UserError
from causalneg.sources.fields import Fields
from causalneg.sources.jsonarray import array_elements
from causalneg.sources.names import QREL_NAMES
from causalneg.sources.qrels import read_qrels
from causalneg.workspace import Manifest, Workspace

PAIRS = [
    {"query": f"question {n}, «ü»?", "positive": f"answer {n}\tx", "negative": [f"wrong {n}"], "title": f"T{n}"}
    for n in range(6)
]
FLAT = [{**row, "positive": f"answer {n}", "negative": f'wrong, "{n}"'} for n, row in enumerate(PAIRS)]
USUAL = [
    {"Question": row["query"], "Pos": [row["positive"], ""], "Hard-Negative": None, "neg2": [{"text": "n"}, {}]}
    for row in PAIRS
]
CHAT = [
    {
        "messages": [{"role": "user", "content": row["query"]}],
        "positive_messages": [[{"role": "user", "content": row["positive"]}]],
        "negative_messages": [[{"role": "user", "content": "no"}]],
    }
    for row in PAIRS
]
BEIR = {
    "corpus.jsonl": lines({"_id": f"d{n}", "title": f"T{n}", "text": f"text «ü» {n}"} for n in range(6)).encode(),
    "queries.jsonl": lines({"_id": f"q{n}", "text": f"query {n}"} for n in range(6)).encode(),
    "qrels/test.tsv": ("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(6))).encode(),
}


@cache
def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(PAIRS), sink)
    return sink.getvalue()


def separated(delimiter: str) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(FLAT[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(FLAT)
    return sink.getvalue().encode()


FILES: dict[str, Callable[[], bytes]] = {
    "pairs.jsonl": lambda: lines(PAIRS).encode(),
    "chat.jsonl": lambda: lines(CHAT).encode(),
    "pairs.json": lambda: json.dumps(PAIRS, indent=1, ensure_ascii=False).encode(),
    "pairs.csv": lambda: separated(","),
    "pairs.tsv": lambda: separated("\t"),
    "semicolons.csv": lambda: separated(";"),
    "member.json": lambda: json.dumps({"version": 1, "data": PAIRS}, ensure_ascii=False).encode(),
    "usual.ndjson": lambda: lines(USUAL).encode(),
    "pairs.parquet": parquet,
    "pairs.jsonl.gz": lambda: gzip.compress(lines(PAIRS).encode(), mtime=0),
    "pairs.jsonl.zst": lambda: pa.compress(lines(PAIRS).encode(), "zstd", asbytes=True),
}


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, overwrite, repeat or insert stretches of a file."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + draw(st.sampled_from([1, 8, 200])))))
        stretch = draw(st.sampled_from(["cut", "end", "repeat", "overwrite", "insert"]))
        noise = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\n", b'"', b"\x00", b"\xff", b"\t", b"[", b"}"]))
        )
        middle = {
            "cut": b"",
            "end": b"",
            "repeat": content[start:end] * 2,
            "overwrite": noise[: end - start].ljust(end - start, b"\x00"),
            "insert": noise + content[start:end],
        }[stretch]
        content = content[:start] + middle + (b"" if stretch == "end" else content[end:])
    return content


def counted_lines(content: bytes) -> int:
    """Count the lines of a file that are not empty, without any of the import's code."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    return sum(bool(line.decode("utf-8", "replace").strip()) for line in content.split(b"\n"))


def attempt(write: Callable[[Path], Path]) -> Manifest | None:
    """Import what is written to a new folder; None if the user is told in a sentence why not."""
    folder = Path(tempfile.mkdtemp())
    try:
        return imported(Workspace(str(folder / "ws")), write(folder), import__max_rejected_share=1.0)
    except UserError as error:
        sentence = str(error)
    finally:
        shutil.rmtree(folder)
    assert_one_sentence(sentence)
    return None


def assert_one_sentence(message: str) -> None:
    assert "\n" not in message
    assert len(message) < 1000


def file_of(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_whole_before_they_are_damaged(name: str) -> None:
    made = attempt(file_of(name, FILES[name]()))
    assert made is not None
    assert made.details["rows"]["pairs"]["accepted"] == 6


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_file(name: str, data: st.DataObject) -> None:
    content = data.draw(mutated(FILES[name]()))
    made = attempt(file_of(name, content))
    if made and name.endswith(".jsonl"):
        assert made.details["rows"]["pairs"]["read"] == counted_lines(content)
    if made and name.endswith(".tsv"):
        # One of them is the header; a line of nothing but tabs is a row of empty cells.
        filled = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b"\r")]
        assert made.details["rows"]["pairs"]["read"] == len(filled) - 1


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=20)
@given(content=st.binary(max_size=300))
@example(b"")
@example(b"\xef\xbb\xbf")
@example(b"\xff\xfe{\x00")
@example(b"[" * 5000)
@example(b"[[]")
@example(b'{"query": "q", "positive": ' + b"[" * 900 + b"]" * 900 + b"}")
@example(b'{"query": "q", "positive": "p", "negative_' + b"9" * 5000 + b'": "n"}')
@example(b'[{"query": "q", "positive": "p"}, 1')
@example(b'{"query": "q", "positive": "\\ud800 p"}')
def test_any_bytes(name: str, content: bytes) -> None:
    made = attempt(file_of(name, content))
    assert made is None or made.details["passages"] > 0


@pytest.mark.parametrize("name", BEIR)
@given(data=st.data())
def test_a_damaged_beir_folder(name: str, data: st.DataObject) -> None:
    content = data.draw(mutated(BEIR[name]))

    def write(folder: Path) -> Path:
        (folder / "beir" / "qrels").mkdir(parents=True)
        for other, whole in BEIR.items():
            (folder / "beir" / other).write_bytes(content if other == name else whole)
        return folder / "beir"

    made = attempt(write)
    if made and name.endswith(".jsonl"):
        read = made.details["rows"]["passages" if name == "corpus.jsonl" else "queries"]["read"]
        assert read == counted_lines(content)
    if made and not name.endswith(".jsonl"):
        assert made.details["rows"]["judgements"]["read"] in (counted_lines(content), counted_lines(content) - 1)


@given(data=st.data())
def test_a_damaged_zip(data: st.DataObject) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in BEIR.items():
            archive.writestr(zipfile.ZipInfo(f"beir/{name}"), content, zipfile.ZIP_DEFLATED)
    attempt(file_of("beir.zip", data.draw(mutated(sink.getvalue()))))


@given(data=st.data())
@settings(max_examples=30)
def test_a_damaged_folder_of_save_to_disk(data: st.DataObject, saved: dict[str, bytes]) -> None:
    name = data.draw(st.sampled_from(sorted(saved)))
    content = data.draw(mutated(saved[name]))

    def write(folder: Path) -> Path:
        (folder / "saved").mkdir()
        for other, whole in saved.items():
            (folder / "saved" / other).write_bytes(content if other == name else whole)
        return folder / "saved"

    attempt(write)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a folder of save_to_disk."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("saved") / "data"
    datasets.Dataset.from_list(PAIRS).save_to_disk(str(folder))
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@given(
    rows=st.lists(
        st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v))
    ),
    indent=st.sampled_from([None, 0, 3]),
    step=st.integers(1, 7),
)
def test_a_json_array_is_taken_apart_however_it_is_cut(rows: list[object], indent: int | None, step: int) -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(step)

    content = json.dumps(rows, indent=indent).encode()
    assert list(array_elements(Dripping(content), "x")) == rows


IDS = st.text(st.characters(codec="utf-8", exclude_characters='\t\r\n,"', exclude_categories=["Cc", "Cs"]), min_size=1)


@given(
    judged=st.lists(
        st.tuples(IDS, IDS, st.integers(-3, 3)), min_size=1, max_size=5, unique_by=lambda row: (row[0], row[1])
    ),
    order=st.permutations(range(4)),
    names=st.tuples(*(st.sampled_from(QREL_NAMES[field]) for field in ("query", "passage", "score"))),
    spell=st.sampled_from([str.upper, str.title, lambda name: name.replace("_", "-")]),
    pointed=st.booleans(),
)
def test_judgements_are_read_in_any_order_of_named_columns(
    judged: list[tuple[str, str, int]],
    order: list[int],
    names: tuple[str, str, str],
    spell: Callable[[str], str],
    pointed: bool,
) -> None:
    def line(cells: list[str]) -> bytes:
        return ("\t".join(cells[n] for n in order) + "\n").encode()

    table = [[q, p, f"{s}.0" if pointed else str(s), "note"] for q, p, s in judged]
    content = line([*(spell(str(name)) for name in names), "remark"]) + b"".join(line(cells) for cells in table)
    found = list(read_qrels(io.BytesIO(content), "test", "x", Fields({}, QREL_NAMES)))
    assert [(row.query_id, row.passage_id, row.score) for row in found] == judged


@given(content=st.binary(max_size=200))
@example(b"qid\tpid\n")
@example(b'a,"b\n')
@example(b"qid,pid,\x00\n")
@example(b"\xef\xbb\xbfqid pid rel\n\xff\n")
def test_any_bytes_are_judgements_or_a_sentence(content: bytes) -> None:
    try:
        found = list(read_qrels(io.BytesIO(content), "test", "x", Fields({}, QREL_NAMES)))
    except UserError as error:
        assert_one_sentence(str(error))
        return
    assert len(found) in (counted_lines(content), counted_lines(content) - 1)


TOPICS = {
    "topics.tsv": b"0\twhat is it\n1\tand that\n",
    "topics.jsonl": b'{"qid": 0, "query": "what is it"}\n{"qid": "1", "query": "and that"}\n',
    "topics.top": b"<top>\n<num> Number: 0 </num>\n<title> what is it\n<desc> x\n</top>\n"
    b"<top>\n<num> Number: 1\n<title> and that\n<desc> y\n</top>\n",
    "topics.xml": b'<topics><topic number="0"><query>what is it</query></topic>'
    b'<topic number="1"><title>and</title></topic></topics>',
    "qrels.txt": b"0 0 d0 1\n1 0 d1 1\n1 0 d2 0\n",
    "qrels.named.tsv": b"DocNo\tnote\tRel\tQuery ID\nd0\tx\t1.0\t0\nd1\t\t1\t1\t\nd2\ty\t0\t1\n",
    "qrels.csv": b'qid,pid,label\n0,d0,1\n1,"d1",1\n1,d2,0\n',
    "named.tsv": b"question\tquery_id\nwhat is it\t0\nand that\t1\n",
    "qrels.txt.gz": gzip.compress(b"0 0 d0 1\n1 0 d1 1\n1 0 d2 0\n", mtime=0),
}


@pytest.mark.parametrize("name", TOPICS)
@settings(max_examples=30)
@given(data=st.data())
def test_damaged_topics_and_judgements(name: str, data: st.DataObject) -> None:
    content = data.draw(mutated(TOPICS[name]))
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "corpus.jsonl").write_bytes(BEIR["corpus.jsonl"])
        (folder / "qrels.txt").write_bytes(TOPICS["qrels.txt"])
        (folder / "topics.tsv").write_bytes(TOPICS["topics.tsv"])
        (folder / name).write_bytes(content)
        topics, qrels = ("topics.tsv", name) if name.startswith("qrels") else (name, "qrels.txt")
        flags = {
            "import__topics": {"test": str(folder / topics)},
            "import__qrels": {"test": str(folder / qrels)},
            "import__max_rejected_share": 1.0,
        }
        imported(Workspace(str(folder / "ws")), folder / "corpus.jsonl", **flags)
    except UserError as error:
        assert_one_sentence(str(error))
    finally:
        shutil.rmtree(folder)
