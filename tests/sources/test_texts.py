"""Texts are kept in one form, and what was mended or found in them is counted; an empty member costs no row."""

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_samples import imported, lines, outcomes, rows, texts, write_beir

from causalneg.sources.texts import settled
from causalneg.workspace import Workspace

CAFE, DECOMPOSED = "Café «Ångström»", "Cafe\u0301 «A\u030angstro\u0308m»"


def import_texts(folder: Path, passage: dict[str, Any], query: str = "q?") -> Workspace:
    corpus = [{"_id": "d", "text": "t", **passage}, {"_id": "other", "text": "o"}]
    source = write_beir(folder / "beir", [], [{"_id": "q", "text": query}], {"train": "q\td\t1\n"})
    # Escaped, since a lone surrogate cannot be written otherwise.
    (source / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    workspace = Workspace(str(folder / "ws"))
    imported(workspace, source)
    return workspace


# Characters


def test_accents_are_joined_with_their_letters(tmp_path: Path) -> None:
    workspace = import_texts(tmp_path, {"title": DECOMPOSED, "text": f"of {DECOMPOSED}"}, f"where is {DECOMPOSED}?")
    corpus, queries, _ = rows(workspace)
    assert (corpus[0].title, corpus[0].text, queries[0].text) == (CAFE, f"of {CAFE}", f"where is {CAFE}?")
    assert outcomes(workspace.require("import")) == {"recomposed": 3}


def test_pairs_in_two_forms_of_unicode_are_one_passage(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        lines([{"query": f"{q} ü", "positive": p} for q, p in (("a", CAFE), ("a", DECOMPOSED), ("b", DECOMPOSED))])
    )
    made = imported(workspace, tmp_path / "pairs.jsonl", import__test_share=0.0)
    assert texts(workspace) == [("a ü", CAFE, 1, "train"), ("b ü", CAFE, 1, "train")]
    assert made.details["outcomes"]["recomposed"] == 2


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a \ud800 b", "a \ufffd b"),
        ("a \udc00", "a \ufffd"),
        ("\ud83d\ude80 rocket, \ud83d alone", "🚀 rocket, \ufffd alone"),
    ],
)
def test_a_lone_surrogate_is_a_replacement_character(tmp_path: Path, text: str, kept: str) -> None:
    workspace = import_texts(tmp_path, {"text": text})
    assert rows(workspace)[0][0].text == kept
    assert outcomes(workspace.require("import")) == {"lone_surrogate": 1}


@pytest.mark.parametrize("entity", ["&amp;", "&lt;div&gt;", "&#39;", "&#x27;", "&nbsp;", "&Eacute;"])
def test_html_entities_are_kept_and_counted(tmp_path: Path, entity: str) -> None:
    workspace = import_texts(tmp_path, {"title": f"Tom {entity} Jerry", "text": "plain"}, f"who {entity}?")
    corpus, queries, _ = rows(workspace)
    assert (corpus[0].title, queries[0].text) == (f"Tom {entity} Jerry", f"who {entity}?")
    assert outcomes(workspace.require("import")) == {"html_entities": 2}


@pytest.mark.parametrize("text", ["AT&T; R&D", "a & b;", "&;", "& amp;", "&#;", "x && y"])
def test_an_ampersand_is_no_entity(tmp_path: Path, text: str) -> None:
    found = import_texts(tmp_path, {"text": text}).require("import")
    assert outcomes(found) == {}


@given(st.text())
def test_a_settled_text_stays_as_it_is(text: str) -> None:
    once, _ = settled(text)
    again, kinds = settled(once)
    assert again == once
    assert set(kinds) <= {"html_entities"}
    once.encode()


@given(st.lists(st.sampled_from(["a", "\ud83d", "\ude80", "e", "\u0301", "&amp;", "é"])))
def test_a_settled_text_can_be_stored(parts: list[str]) -> None:
    settled("".join(parts))[0].encode()


# Metadata


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_has_not_is_left_out_of_the_metadata(tmp_path: Path, number: float) -> None:
    metadata = {"year": 1969, "rating": number, "list": [1, number, {"x": number, "y": 2}], "by": {"age": number}}
    workspace = import_texts(tmp_path, {"metadata": metadata})
    assert rows(workspace)[0][0].metadata == '{"by":{},"list":[1,{"y":2}],"year":1969}'
    assert outcomes(workspace.require("import")) == {"metadata_value": 4}


def test_metadata_of_nothing_else_is_none(tmp_path: Path) -> None:
    assert rows(import_texts(tmp_path, {"metadata": '{"x": NaN}'}))[0][0].metadata == ""


def test_nan_in_a_column_of_parquet_costs_no_passage(tmp_path: Path, workspace: Workspace) -> None:
    when = datetime.date(1969, 7, 20)
    table = [{"id": f"d{n}", "text": f"t{n}", "metadata": {"a": v, "on": when}} for n, v in enumerate([1.5, None])]
    table.append({"id": "d2", "text": "t2", "metadata": {"a": float("nan"), "on": when}})
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "corpus.parquet")
    (tmp_path / "topics.tsv").write_text("q\t?\n")
    (tmp_path / "qrels.txt").write_text("q 0 d2 1\n")
    split = {"import__topics": {"train": str(tmp_path / "topics.tsv")}}
    split |= {"import__qrels": {"train": str(tmp_path / "qrels.txt")}}
    made = imported(workspace, tmp_path / "corpus.parquet", **split)
    assert [p.metadata for p in rows(workspace)[0]] == [
        '{"a":1.5,"on":"1969-07-20"}',
        '{"a":null,"on":"1969-07-20"}',
        '{"on":"1969-07-20"}',
    ]
    assert outcomes(made) == {"metadata_value": 1}


# Lists


@pytest.mark.parametrize("empty", ["", " \n", None, {}, {"title": "", "text": " "}, {"docid": "x", "text": None}])
def test_an_empty_member_of_a_list_costs_no_row(tmp_path: Path, workspace: Workspace, empty: object) -> None:
    row = {"query": "q", "pos": ["p", empty, "p2"], "neg": [empty, {"text": "n"}, empty]}
    (tmp_path / "pairs.jsonl").write_text(lines([row, {"query": "r", "pos": "p", "neg": []}]))
    made = imported(workspace, tmp_path / "pairs.jsonl", import__test_share=0.0)
    assert [(p, score) for q, p, score, _ in texts(workspace) if q == "q"] == [("p", 1), ("p2", 1), ("n", 0)]
    assert made.details["rows"]["pairs"] == {"read": 2, "accepted": 2, "merged": 0, "rejected": 0}
    assert outcomes(made)["empty_member"] == 3


def test_an_empty_conversation_costs_no_row(tmp_path: Path, workspace: Workspace) -> None:
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}]

    row = {"messages": said("q"), "positive_messages": [[], said("p")], "negative_messages": [said(" "), said("n"), []]}
    (tmp_path / "chat.jsonl").write_text(lines([row]))
    made = imported(workspace, tmp_path / "chat.jsonl", import__test_share=0.0)
    assert texts(workspace) == [("q", "p", 1, "train"), ("q", "n", 0, "train")]
    assert outcomes(made) == {"empty_member": 3}


def test_an_empty_cell_is_one_negative_less(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "pairs.csv").write_text("query,positive,negative_1,negative_2\nq,p, ,n\n")
    made = imported(workspace, tmp_path / "pairs.csv", import__test_share=0.0)
    assert texts(workspace) == [("q", "p", 1, "train"), ("q", "n", 0, "train")]
    assert outcomes(made) == {}


@pytest.mark.parametrize("member", [{"passage": "p"}, 7, ["p"]])
def test_a_member_of_another_kind_is_no_empty_one(tmp_path: Path, workspace: Workspace, member: object) -> None:
    good = [{"query": f"q{n}", "positive": "p"} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text(lines([*good, {"query": "q", "positive": "p", "negative": [member]}]))
    made = imported(workspace, tmp_path / "pairs.jsonl")
    assert made.details["rows"]["pairs"]["rejected"] == 1
