"""The import stage: every layout it reads, and every mistake it names."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from source_samples import CORPUS, QUERIES, TEST, TRAIN, imported, lines, outcomes, rows, texts, zipped

from causalneg.errors import UserError
from causalneg.records import Passage, Qrel, Query
from causalneg.workspace import Workspace

SPLITS = {"test": 1, "train": 4}


# What is read


@pytest.mark.parametrize("layout", ["folder", "zip", "zip with a folder"])
def test_beir(beir: Path, workspace: Workspace, layout: str) -> None:
    source = {"folder": lambda: beir, "zip": lambda: zipped(beir, ""), "zip with a folder": lambda: zipped(beir, "x/")}
    made = imported(workspace, source[layout]())
    corpus, queries, qrels = rows(workspace)
    assert corpus == [
        Passage(id="d1", title="Apollo 8", text="It circled the Moon."),
        Passage(id="d2", text="Eagle landed — «ü» 🚀."),
        Passage(id="3", text="A third one.", metadata='{"url":"x"}'),
    ]
    assert queries == [Query(id=f"q{n}", text=f"query {n}?") for n in range(5)]
    assert sorted(qrels, key=lambda q: (q.split, q.query_id, q.passage_id)) == [
        Qrel(query_id="q4", passage_id="3", score=2, split="test"),
        Qrel(query_id="q0", passage_id="d1", score=1, split="train"),
        Qrel(query_id="q0", passage_id="d2", score=0, split="train"),
        *(Qrel(query_id=f"q{n}", passage_id="d1", score=1, split="train") for n in (1, 2, 3)),
    ]
    assert (made.counts.rows_in, made.counts.accepted, made.counts.rejected) == (6, 5, 1)
    assert made.details == {
        "passages": 3,
        "splits": SPLITS,
        "rows": {
            "passages": {"read": 3, "accepted": 3, "merged": 0, "rejected": 0},
            "queries": {"read": 6, "accepted": 5, "merged": 0, "rejected": 1},
            "judgements": {"read": 6, "accepted": 6, "merged": 0, "rejected": 0},
        },
        "outcomes": {"without_judgement": 1},
        "columns_not_used": {},
        "files_not_read": [],
    }


def test_line_ends_byte_order_marks_and_empty_lines_do_no_harm(beir: Path, workspace: Workspace) -> None:
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        content = (beir / name).read_bytes().replace(b"\n", b"\r\n\r\n")
        (beir / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert imported(workspace, beir).details["splits"] == SPLITS
    assert rows(workspace)[1][0] == Query(id="q0", text="query 0?")


def test_a_null_title_is_an_empty_one(beir: Path, workspace: Workspace) -> None:
    (beir / "corpus.jsonl").write_text(lines([{"_id": "d1", "title": None, "text": "a"}, *CORPUS[1:]]))
    imported(workspace, beir)
    assert rows(workspace)[0][0] == Passage(id="d1", text="a")


def test_pairs_with_splits(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        lines(
            [
                {"query": "a", "positive": "P1", "title": "T", "split": "train"},
                {"query": "a", "positive": "P2", "split": "train"},
                {"query": "b", "positive": "P1", "title": "T", "split": "test"},
                {"query": "b", "positive": "P1", "title": "T", "split": "test"},
            ]
        )
    )
    made = imported(workspace, path)
    assert texts(workspace) == [("a", "T. P1", 1, "train"), ("a", "P2", 1, "train"), ("b", "T. P1", 1, "test")]
    assert made.details["splits"] == {"test": 1, "train": 1}
    assert made.details["rows"]["pairs"] == {"read": 4, "accepted": 4, "merged": 0, "rejected": 0}
    assert outcomes(made) == {"repeated": 2 + 2 + 1}, "queries, passages, judgements"


def test_pairs_without_splits_are_split_by_query_and_seed(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"

    def held_out(name: str, seed: int, queries: int) -> set[str]:
        path.write_text(lines([{"query": f"q{n % queries}", "positive": f"p{n}"} for n in range(2 * queries)]))
        workspace = Workspace(str(tmp_path / name))
        imported(workspace, path, seed=seed, import__test_share=0.25)
        judged = texts(workspace)
        test, train = ({query for query, _, _, chosen in judged if chosen == split} for split in ("test", "train"))
        assert not test & train
        assert len(test | train) == queries
        assert abs(len(test) / queries - 0.25) < 0.1
        return test

    first = held_out("a", 1, 200)
    assert held_out("b", 1, 200) == first != held_out("c", 2, 200)
    assert held_out("d", 1, 300) & {f"q{n}" for n in range(200)} == first, "new queries move no other one"


def test_the_embedded_sample_is_the_default(sample_workspace: Workspace) -> None:
    made = sample_workspace.require("import")
    corpus, queries, _ = rows(sample_workspace)
    assert made.config["import"]["source"] == "embedded:sample"
    assert made.details["passages"] == len(corpus) >= 240
    assert len(queries) == sum(made.details["splits"].values())


@pytest.mark.parametrize(
    ("name", "passages", "train", "test"), [("scifact", 5183, 809, 300), ("nfcorpus", 3633, 2590, 323)]
)
def test_real_data(shared_data: Path, workspace: Workspace, name: str, passages: int, train: int, test: int) -> None:
    details = imported(workspace, shared_data / f"{name}.zip").details
    assert details["passages"] == passages
    assert (details["splits"]["train"], details["splits"]["test"]) == (train, test)


def test_training_queries_are_limited_by_seed(beir: Path, tmp_path: Path) -> None:
    def kept(name: str, seed: int) -> set[str]:
        workspace = Workspace(str(tmp_path / name))
        made = imported(workspace, beir, import__max_train_queries=2, seed=seed)
        assert made.details["splits"] == {"test": 1, "train": 2}
        assert (made.counts.accepted, made.counts.rejected) == (3, 3)
        assert {q.id for q in rows(workspace)[1]} == {q.query_id for q in rows(workspace)[2]}
        return {q.query_id for q in rows(workspace)[2] if q.split == "train"}

    assert kept("one", 0) == kept("two", 0)
    assert len({frozenset(kept(f"seed{seed}", seed)) for seed in range(8)}) > 1


def test_importing_twice_does_nothing(beir: Path, workspace: Workspace) -> None:
    first = imported(workspace, beir)
    stamps = {name: Path(workspace.path(name)).stat().st_mtime_ns for name in first.files}
    assert imported(workspace, beir) == first
    assert {name: Path(workspace.path(name)).stat().st_mtime_ns for name in first.files} == stamps


def test_changed_data_is_imported_anew(beir: Path, workspace: Workspace) -> None:
    imported(workspace, beir)
    with (beir / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d4", "text": "A fourth."}\n')
    assert imported(workspace, beir).details["passages"] == 4


def test_a_mistyped_source_leaves_an_earlier_import(beir: Path, workspace: Workspace) -> None:
    first = imported(workspace, beir)
    with pytest.raises(UserError, match="does not exist"):
        imported(workspace, beir.with_name("bier"))
    assert workspace.require("import") == first
    assert len(rows(workspace)[0]) == 3


# What is refused


def change(name: str, content: str | bytes | None) -> Callable[[Path], Path]:
    """Return what replaces (None: removes) a file of the data set."""

    def apply(folder: Path) -> Path:
        path = folder / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return apply


def no_qrels(folder: Path) -> Path:
    shutil.rmtree(folder / "qrels")
    return folder


def cut_zip(folder: Path) -> Path:
    path = zipped(folder, "x/")
    path.write_bytes(path.read_bytes()[:-60])
    return path


def zip_with_damaged_member(folder: Path) -> Path:
    (folder / "corpus.jsonl").write_text(lines([{"_id": str(n), "text": str(n**7)} for n in range(5000)]))
    path = zipped(folder, "")
    content = bytearray(path.read_bytes())
    content[2000:2100] = b"\xff" * 100
    path.write_bytes(content)
    return path


def zip_without_a_corpus(folder: Path) -> Path:
    (folder / "corpus.jsonl").unlink()
    return zipped(folder, "x/")


FIRST = lines(CORPUS[:1])
OTHER = '{"_id": "d1", "text": "another"}\n'
BAD = {
    "no corpus": (change("corpus.jsonl", None), ["corpus.jsonl does not exist"]),
    "no queries": (change("queries.jsonl", None), ["queries.jsonl does not exist"]),
    "no qrels": (no_qrels, ["qrels", "train.tsv"]),
    "broken line": (change("corpus.jsonl", FIRST + '{"_id": "d2", "text": \n'), ["corpus.jsonl, line 2", "JSON"]),
    "no object": (change("queries.jsonl", lines(QUERIES) + "[1]\n"), ["queries.jsonl, line 7", "list"]),
    "deep nesting": (change("queries.jsonl", "[" * 100_000 + "\n"), ["queries.jsonl, line 1", "JSON"]),
    "long number": (change("queries.jsonl", "1" * 5000 + "\n"), ["queries.jsonl, line 1", "JSON"]),
    "not UTF-8": (change("corpus.jsonl", FIRST.encode() + b'{"_id": "d2", "text": "\xe9"}'), ["line 2", "UTF-8"]),
    "UTF-16": (change("corpus.jsonl", lines(CORPUS).encode("utf-16")), ["corpus.jsonl, line 1", "UTF-8"]),
    "empty corpus": (change("corpus.jsonl", "\n"), ["corpus is empty"]),
    "same passage id": (change("corpus.jsonl", lines(CORPUS) + OTHER), ["corpus.jsonl, line 4", "'d1'", "unique"]),
    "same query id": (
        change("queries.jsonl", lines(QUERIES) + '{"_id": "q0", "text": "x"}\n'),
        ["queries.jsonl, line 7", "'q0'", "unique"],
    ),
    "no id": (change("corpus.jsonl", '{"text": "t"}\n'), ["corpus.jsonl, line 1", "'_id' is missing"]),
    "no text": (change("queries.jsonl", '{"_id": "q0"}\n'), ["queries.jsonl, line 1", "'text' is missing"]),
    "empty text": (change("queries.jsonl", '{"_id": "q0", "text": ""}\n'), ["line 1", "'text' is empty"]),
    "text of another type": (change("queries.jsonl", '{"_id": "q0", "text": [1]}\n'), ["line 1", "'text' is no text"]),
    "unknown passage": (change("qrels/train.tsv", TRAIN + "q1\td9\t1\n"), ["train.tsv, line 7", "'d9'", "corpus"]),
    "unknown query": (change("qrels/train.tsv", TRAIN + "q9\td1\t1\n"), ["train.tsv, line 7", "'q9'", "queries"]),
    "too few columns": (change("qrels/test.tsv", TEST + "q1\td1\n"), ["test.tsv, line 3", "three columns"]),
    "score in words": (change("qrels/test.tsv", TEST + "q1\td1\tgood\n"), ["test.tsv, line 3", "whole-number"]),
    "score of odd digits": (change("qrels/test.tsv", TEST + "q1\td1\t²\n"), ["test.tsv, line 3", "whole-number"]),
    "no positive": (change("qrels/train.tsv", "q0\td1\t0\n"), ["positive"]),
    "cut zip": (cut_zip, ["beir.zip", "whole zip"]),
    "damaged zip": (zip_with_damaged_member, ["corpus.jsonl"]),
    "zip without a corpus": (zip_without_a_corpus, ["corpus.jsonl does not exist"]),
}


@pytest.mark.parametrize("case", BAD)
def test_with_strict_bad_data_is_named_and_leaves_no_manifest(beir: Path, workspace: Workspace, case: str) -> None:
    good = shutil.copytree(beir, beir.with_name("good"))
    damage, parts = BAD[case]
    if case == "no positive":
        (beir / "qrels" / "test.tsv").unlink()
    with pytest.raises(UserError) as caught:
        imported(workspace, damage(beir), import__strict=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert workspace.manifest("import") is None
    assert imported(workspace, good).details["splits"] == SPLITS
    assert len(rows(workspace)[0]) == 3


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"query": "a", "positive": "p"}\n{"query": "b"}\n', "line 2: field 'positive' is missing"),
        ('{"positive": "p"}\n', "line 1: field 'query' is missing"),
        ('{"query": "a", "positive": "p"}\n{"query": \n', "line 2: not valid JSON"),
        ('{"query": "a", "positive": 7}\n', "line 1: field 'positive' is no text"),
        ("", "corpus is empty"),
    ],
)
def test_bad_pairs_are_named(tmp_path: Path, workspace: Workspace, content: str, part: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=part):
        imported(workspace, path)
    assert workspace.manifest("import") is None
    path.write_text(lines([{"query": "a", "positive": "p", "split": "train"}]))
    assert imported(workspace, path).details["splits"] == {"train": 1}


def test_a_file_of_another_kind_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "data.xlsx").write_text("query,positive\n")
    with pytest.raises(UserError, match=r"data\.xlsx is no BEIR folder or \.zip.*\.jsonl"):
        imported(workspace, tmp_path / "data.xlsx")


def test_an_import_that_broke_off_goes_on_when_the_data_is_mended(beir: Path, workspace: Workspace) -> None:
    whole = (beir / "qrels" / "train.tsv").read_text()
    (beir / "qrels" / "train.tsv").write_text(whole + "broken\n")
    with pytest.raises(UserError, match=r"train\.tsv, line 7"):
        imported(workspace, beir, import__strict=True)
    (beir / "qrels" / "train.tsv").write_text(whole)
    assert imported(workspace, beir, import__strict=True).details["passages"] == 3
