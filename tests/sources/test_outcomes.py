"""What becomes of every kind of row that is not simply accepted: counted, shown, and written aside with its place."""

import io
from pathlib import Path
from typing import Any

import pytest
from source_samples import imported, lines, outcomes, rejected, rows, texts, write_beir

from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.records import Passage, Qrel
from causalneg.sources import opening
from causalneg.sources.outcomes import OUTCOMES
from causalneg.workspace import Workspace

MANY = 100
CORPUS = [{"_id": f"d{n}", "title": "", "text": f"text {n}"} for n in range(MANY)]
QUERIES = [{"_id": f"q{n}", "text": f"query {n}"} for n in range(MANY)]
QRELS = "".join(f"q{n}\td{n}\t1\n" for n in range(MANY))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A correct data set, large enough that one broken row is no tenth of it."""
    return write_beir(tmp_path / "beir", CORPUS, QUERIES, {"train": QRELS})


def append(folder: Path, name: str, content: str | bytes) -> None:
    with (folder / name).open("ab") as file:
        file.write(content.encode() if isinstance(content, str) else content)


CASES: dict[str, tuple[str, str | bytes, str, str]] = {
    "no JSON": ("corpus.jsonl", '{"_id": "x", "text": \n', "invalid_row", "not valid JSON"),
    "no object": ("queries.jsonl", "[1]\n", "invalid_row", "not a list"),
    "deep": ("corpus.jsonl", "[" * 100_000 + "\n", "invalid_row", "not valid JSON"),
    "no id": ("corpus.jsonl", '{"text": "t"}\n', "missing_field", "'_id' is missing"),
    "empty id": ("corpus.jsonl", '{"_id": "", "text": "t"}\n', "missing_field", "'_id' is empty"),
    "a fraction as id": ("corpus.jsonl", '{"_id": 1.5, "text": "t"}\n', "wrong_type", "'_id' is no text"),
    "a list beside a title": ("corpus.jsonl", '{"_id": "x", "title": "t", "text": []}\n', "wrong_type", "but list"),
    "blank title and text": ("corpus.jsonl", '{"_id": "x", "title": " ", "text": " "}\n', "empty_text", "is empty"),
    "no text": ("corpus.jsonl", '{"_id": "x", "title": "t"}\n', "missing_field", "is missing"),
    "empty text": ("corpus.jsonl", '{"_id": "x", "title": "", "text": " "}\n', "empty_text", "'text' is empty"),
    "empty query": ("queries.jsonl", '{"_id": "x", "text": ""}\n', "empty_text", "'text' is empty"),
    "a list as text": ("corpus.jsonl", '{"_id": "x", "text": ["t"]}\n', "wrong_type", "but list"),
    "not UTF-8": ("corpus.jsonl", b'{"_id": "x", "text": "caf\xe9"}\n', "not_utf8", "not UTF-8"),
    "qrels not UTF-8": ("qrels/train.tsv", b"q1\td\xe9\t1\n", "not_utf8", "not UTF-8"),
    "metadata": ("corpus.jsonl", '{"_id": "x", "text": "t", "metadata": [1]}\n', "wrong_metadata", "no JSON object"),
    "columns": ("qrels/train.tsv", "q1\td1\n", "invalid_row", "three columns"),
    "score": ("qrels/train.tsv", "q1\td2\tgood\n", "wrong_score", "'good'"),
    "a huge score": ("qrels/train.tsv", "q1\td2\t99999999999999999999\n", "wrong_score", "at most"),
    "same id": ("corpus.jsonl", '{"_id": "d1", "text": "other"}\n', "duplicate_id", "'d1'"),
    "same query id": ("queries.jsonl", '{"_id": "q1", "text": "other"}\n', "duplicate_id", "'q1'"),
    "unknown passage": ("qrels/train.tsv", "q1\tnowhere\t1\n", "unknown_passage", "'nowhere'"),
    "unknown query": ("qrels/train.tsv", "nobody\td1\t1\n", "unknown_query", "'nobody'"),
    "judged otherwise": ("qrels/train.tsv", "q1\td1\t0\n", "conflicting_score", "another score"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_row_is_counted_and_written_aside(folder: Path, workspace: Workspace, case: str) -> None:
    name, content, kind, reason = CASES[case]
    append(folder, name, content)
    report = Reporter(io.StringIO())
    made = imported(workspace, folder, report)
    assert outcomes(made) == {kind: 1}
    (row,) = rejected(workspace)
    assert (row.kind, row.line, row.file) == (kind, MANY + 1, str(folder / name))
    assert reason in row.reason or case == "a huge score"
    assert made.details["passages"] == MANY
    assert made.details["splits"] == {"train": MANY}
    shown = report.console.file.getvalue()  # type: ignore[attr-defined]
    assert kind in shown
    assert "rejected" in shown


@pytest.mark.parametrize("case", CASES)
def test_strict_stops_at_it(folder: Path, workspace: Workspace, case: str) -> None:
    name, content, _, _ = CASES[case]
    append(folder, name, content)
    with pytest.raises(UserError, match=f"{Path(name).name}, line {MANY + 1}: ") as caught:
        imported(workspace, folder, import__strict=True)
    assert "\n" not in str(caught.value)
    assert workspace.manifest("import") is None


@pytest.mark.parametrize("case", CASES)
def test_too_many_of_them_mean_a_wrong_mapping(folder: Path, workspace: Workspace, case: str) -> None:
    name, content, kind, _ = CASES[case]
    append(folder, name, (content.encode() if isinstance(content, str) else content) * 30)
    if not OUTCOMES[kind].strict or kind in ("duplicate_id", "unknown_passage", "unknown_query", "conflicting_score"):
        assert outcomes(imported(workspace, folder))[kind] >= 1, "odd, but the rows can be read"
        return
    with pytest.raises(UserError, match=f"line {MANY + 1}: .*30 of 130 .* are broken"):
        imported(workspace, folder)
    assert outcomes(imported(workspace, folder, import__max_rejected_share=0.3)) == {kind: 30}


def test_a_file_without_a_good_row_stops_soon(tmp_path: Path, workspace: Workspace) -> None:
    corpus = [{"_id": str(n), "abstract": "x"} for n in range(5000)]
    folder = write_beir(tmp_path / "beir", corpus, QUERIES, {"train": QRELS})
    with pytest.raises(UserError, match=r"line 1: field 'text' is missing.*1,000 of 1,000 passages are broken"):
        imported(workspace, folder)


def test_a_line_over_the_bound_is_skipped(folder: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LINE_BYTES", 1000)
    exactly = '{"_id": "e", "text": "%s"}'
    append(folder, "corpus.jsonl", exactly % ("x" * (999 - len(exactly) + 2)) + "\n")
    append(folder, "corpus.jsonl", '{"_id": "long", "text": "%s"}\n{"_id": "next", "text": "n"}\n' % ("x" * 5000))
    made = imported(workspace, folder)
    assert outcomes(made) == {"line_too_long": 1}
    assert [p.id for p in rows(workspace)[0]][MANY:] == ["e", "next"]
    assert rejected(workspace)[0].line == MANY + 2


def test_a_title_without_a_text_is_a_passage(folder: Path, workspace: Workspace) -> None:
    append(folder, "corpus.jsonl", lines([{"_id": "x", "title": "Only", "text": ""}]))
    append(folder, "corpus.jsonl", lines([{"_id": "y", "title": "T", "text": None}]))
    made = imported(workspace, folder)
    assert rows(workspace)[0][MANY:] == [Passage(id="x", title="Only", text=""), Passage(id="y", title="T", text="")]
    assert rows(workspace)[0][MANY].full_text == "Only"
    assert outcomes(made) == {}


def test_the_same_row_again_is_merged(folder: Path, workspace: Workspace) -> None:
    append(folder, "corpus.jsonl", lines(CORPUS[:3]))
    append(folder, "queries.jsonl", lines(QUERIES[:2]))
    append(folder, "qrels/train.tsv", "q0\td0\t1\n")
    made = imported(workspace, folder, import__strict=True)
    assert outcomes(made) == {"repeated": 6}
    assert {name: tally["merged"] for name, tally in made.details["rows"].items()} == {
        "passages": 3,
        "queries": 2,
        "judgements": 1,
    }


def test_texts_that_come_under_two_ids(folder: Path, tmp_path: Path) -> None:
    append(folder, "corpus.jsonl", lines([{"_id": "twin", "text": "text 5"}, {"_id": "third", "text": "text 5"}] * 2))
    append(folder, "qrels/train.tsv", "q1\ttwin\t1\nq5\tthird\t1\nq6\ttwin\t0\n")
    kept, merged = Workspace(str(tmp_path / "kept")), Workspace(str(tmp_path / "merged"))
    assert outcomes(imported(kept, folder)) == {"repeated": 2, "duplicate_text": 2}
    assert len(rows(kept)[0]) == MANY + 2
    made = imported(merged, folder, import__duplicate_texts="merge")
    assert outcomes(made) == {"merged_text": 2, "repeated": 2 + 1}, "q5 judges d5 twice then"
    assert len(rows(merged)[0]) == MANY
    assert rows(merged)[2][MANY:] == [
        Qrel(query_id="q1", passage_id="d5", score=1, split="train"),
        Qrel(query_id="q6", passage_id="d5", score=0, split="train"),
    ]


def test_long_texts_are_cut(folder: Path, workspace: Workspace) -> None:
    append(folder, "corpus.jsonl", lines([{"_id": "x", "title": "é" * 30, "text": "ü" * 30}]))
    made = imported(workspace, folder, import__max_characters=20)
    assert outcomes(made) == {"cut": 2}
    assert rows(workspace)[0][-1] == Passage(id="x", title="é" * 20, text="ü" * 20)


def test_queries_without_judgement_or_positive_are_left_out_with_a_reason(folder: Path, workspace: Workspace) -> None:
    append(folder, "queries.jsonl", lines([{"_id": "alone", "text": "a"}, {"_id": "only-0", "text": "b"}]))
    append(folder, "qrels/train.tsv", "only-0\td1\t0\nonly-0\td2\t-1\n")
    made = imported(workspace, folder, import__strict=True)
    assert outcomes(made) == {"without_judgement": 1, "without_positive": 3}
    assert [(r.rows, r.kind) for r in rejected(workspace)] == [
        ("queries", "without_judgement"),
        ("queries", "without_positive"),
        ("judgements", "without_positive"),
        ("judgements", "without_positive"),
    ]


def test_without_any_positive_the_reason_is_named(folder: Path, workspace: Workspace) -> None:
    (folder / "qrels" / "train.tsv").write_text("".join(f"q{n}\tdoc-{n}\t1\n" for n in range(MANY)))
    with pytest.raises(UserError, match=r"No query has a positive.*100 of them name .* not there"):
        imported(workspace, folder)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"query": "q"}, "missing_field"),
        ({"query": "q", "positive": []}, "missing_field"),
        ({"query": "q", "positive": "p", "negative": [1]}, "wrong_type"),
        ({"query": "q", "positive": [" ", None]}, "missing_field"),
        ({"query": "q", "positive": " "}, "empty_text"),
        ({"query": "q", "positive": {"title": "t"}}, "missing_field"),
        ({"query": ["q"], "positive": "p"}, "wrong_type"),
        ({"query": "q", "positive": "p", "split": 3}, "wrong_type"),
        ({"messages": "q", "positive_messages": []}, "wrong_type"),
        ({"messages": [{"role": "user", "content": "q"}], "positive_messages": "p"}, "wrong_type"),
        ({"messages": [{"role": "assistant", "content": "q"}], "positive_messages": []}, "missing_field"),
        ({"messages": [{"role": "user", "content": [{"image": 1}]}], "positive_messages": []}, "wrong_type"),
    ],
)
def test_a_broken_pair_gives_nothing_at_all(
    tmp_path: Path, workspace: Workspace, row: dict[str, Any], kind: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines([{"query": f"good {n}", "positive": f"p {n}"} for n in range(MANY)] + [row]))
    made = imported(workspace, path)
    assert outcomes(made) == {kind: 1}
    assert made.details["rows"]["pairs"] == {"read": MANY + 1, "accepted": MANY, "merged": 0, "rejected": 1}
    assert rejected(workspace)[0].rows == "pairs"


def test_a_text_given_as_positive_and_negative_stays_what_it_was_first(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines([{"query": "q", "positive": "p", "negative": ["p", "n"], "split": "train"}]))
    made = imported(workspace, path)
    assert texts(workspace) == [("q", "p", 1, "train"), ("q", "n", 0, "train")]
    assert outcomes(made) == {"repeated": 1, "conflicting_score": 1}


def test_every_kind_of_outcome_is_met_by_a_test() -> None:
    met = {kind for _, _, kind, _ in CASES.values()}
    met |= {"line_too_long", "repeated", "duplicate_text", "merged_text", "cut"}
    met |= {"without_judgement", "without_positive", "not_drawn"}
    met |= {"missing_file"}  # in test_triviaqa.py
    met |= {"recomposed", "lone_surrogate", "html_entities", "empty_member", "metadata_value"}  # in test_texts.py
    assert met == set(OUTCOMES)
