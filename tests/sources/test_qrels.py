"""Judgements are read by the names of their columns, in any order and spelling, and swapped ones are noticed."""

import gzip
from pathlib import Path

import pytest
from source_samples import CORPUS, QUERIES, imported, outcomes, rows, write_beir

from causalneg.errors import UserError
from causalneg.sources.names import QREL_NAMES
from causalneg.workspace import Workspace

FOUND = [("q0", "d1", 2), ("q1", "d2", 0), ("q1", "d1", 1)]


def import_judgements(tmp_path: Path, content: str, name: str = "train.tsv", **flags: object) -> Workspace:
    """Import them with a small corpus from a BEIR folder."""
    folder = write_beir(tmp_path / "beir", CORPUS, QUERIES, {})
    path = folder / "qrels" / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    workspace = Workspace(str(tmp_path / "ws"))
    made = imported(workspace, folder, **flags)
    assert made.details["files_not_read"] == []
    return workspace


def judged(workspace: Workspace) -> list[tuple[str, str, int]]:
    return [(q.query_id, q.passage_id, q.score) for q in rows(workspace)[2]]


SAID = {
    "BEIR": "query-id\tcorpus-id\tscore\nq0\td1\t2\nq1\td2\t0\nq1\td1\t1\n",
    "without a header": "q0\td1\t2\nq1\td2\t0\nq1\td1\t1\n",
    "swapped by its header": "corpus-id\tquery-id\tscore\nd1\tq0\t2\nd2\tq1\t0\nd1\tq1\t1\n",
    "score first": "Relevance\tDocNo\tQID\n2\td1\tq0\n0\td2\tq1\n1\td1\tq1\n",
    "scores with a point": "query_id\tdoc_id\tlabel\nq0\td1\t2.0\nq1\td2\t0.\nq1\td1\t1.000\n",
    "a tab at the end": "query_id\tdoc_id\tlabel\t\nq0\td1\t2\t\nq1\td2\t0\t\nq1\td1\t1\t\n",
    "a tab at the end, without a header": "q0\td1\t2\t\nq1\td2\t0\t\nq1\td1\t1\t\n",
    "TREC": "q0 0 d1 2\nq1 Q0 d2 0\nq1 0 d1 1\n",
    "TREC with tabs, one at the end": "q0\t0\td1\t2\t\nq1\t0\td2\t0\t\nq1\t0\td1\t1\t\n",
    "TREC with a header": "topic iteration docno rel\nq0 0 d1 2\nq1 0 d2 0\nq1 0 d1 1\n",
    "BEIR's header over TREC's lines": "query-id\tcorpus-id\tscore\nq0\t0\td1\t2\nq1\t0\td2\t0\nq1\t0\td1\t1\n",
    "commas": "Query ID,Doc ID,Relevance\nq0,d1,2\nq1,d2,0\nq1,d1,1\n",
    "commas without a header": "q0,d1,2\nq1,d2,0\nq1,d1,1\n",
    "a name of its own for the score": "qid\tpid\tusefulness\nq0\td1\t2\nq1\td2\t0\nq1\td1\t1\n",
    "an empty last column": "qid\tpid\tscore\tnote\nq0\td1\t2\t\nq1\td2\t0\nq1\td1\t1\tsure\n",
}


@pytest.mark.parametrize("name", ["train.tsv", "train.txt", "train.trec", "train.qrels", "train.csv", "train.tsv.gz"])
@pytest.mark.parametrize("form", SAID)
def test_judgements_say_the_same_in_every_form(tmp_path: Path, form: str, name: str) -> None:
    workspace = import_judgements(tmp_path, SAID[form], name)
    assert judged(workspace) == FOUND
    details = workspace.require("import").details
    assert details["outcomes"] == {"without_judgement": 4}
    assert details["splits"] == {"train": 2}
    notes = {str(tmp_path / "beir" / "qrels" / name): ["note"]} if "empty" in form else {}
    assert details["columns_not_used"] == notes


@pytest.mark.parametrize("passage", QREL_NAMES["passage"])
def test_every_usual_name_is_taken(tmp_path: Path, passage: str) -> None:
    for n, (query, score) in enumerate(zip(QREL_NAMES["query"], QREL_NAMES["score"], strict=False)):
        content = f"{score.upper()}\t{str(passage).title()}\tseconds\t{query}\n1\td1\t9\tq0\n"
        assert judged(import_judgements(tmp_path / str(n), content)) == [("q0", "d1", 1)]


@pytest.mark.parametrize("form", ["d1\tq0\t2\nd2\tq1\t1\nd1\tq1\t1\n", "d1 0 q0 2\nd2 0 q1 1\n", "d1,q0,1\n"])
def test_swapped_columns_without_a_header_are_noticed(tmp_path: Path, form: str) -> None:
    count = form.count("\n")
    with pytest.raises(UserError, match=rf"train\.tsv, line 1: {count} of {count} judgements name a passage where"):
        import_judgements(tmp_path, form)


def test_swapped_columns_are_noticed_where_some_ids_are_those_of_both(tmp_path: Path) -> None:
    corpus = [{"_id": str(n), "text": f"t {n}"} for n in range(100)]
    queries = [{"_id": str(n), "text": f"q {n}"} for n in range(20)]
    lines = [(str(n), str(n * 5 % 100)) for n in range(20)]
    right = write_beir(tmp_path / "right", corpus, queries, {"train": "".join(f"{q}\t{p}\t1\n" for q, p in lines)})
    wrong = write_beir(tmp_path / "wrong", corpus, queries, {"train": "".join(f"{p}\t{q}\t1\n" for q, p in lines)})
    assert imported(Workspace(str(tmp_path / "a")), right).details["rows"]["judgements"]["accepted"] == 20
    with pytest.raises(UserError, match="16 of 20 judgements name a passage where the query belongs"):
        imported(Workspace(str(tmp_path / "b")), wrong)


def test_a_header_without_a_score_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.tsv: none of the columns qid, pid, a, b is known .* call it `score`"):
        import_judgements(tmp_path, "qid\tpid\ta\tb\nq0\td1\t1\t1\n")


def test_lines_of_another_width_than_the_header_are_rejected(tmp_path: Path) -> None:
    content = "pid\tqid\tscore\nd1\tq0\t1\nd1\tq1\nd1\tq1\t1\tx\n"
    workspace = import_judgements(tmp_path, content, import__max_rejected_share=1.0)
    assert judged(workspace) == [("q0", "d1", 1)]
    assert outcomes(workspace.require("import"))["invalid_row"] == 2


@pytest.mark.parametrize("score", ["1.5", "0.25", "1e0", "one", ""])
def test_a_score_that_is_no_whole_number_is_rejected(tmp_path: Path, score: str) -> None:
    content = f"qid\tscore\tpid\nq1\t{score}\td1\nq0\t1\td1\n"
    workspace = import_judgements(tmp_path, content, import__max_rejected_share=1.0)
    assert outcomes(workspace.require("import"))["wrong_score"] == 1
