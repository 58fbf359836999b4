"""The join of pairs with their negatives."""

from pathlib import Path

import pyarrow as pa
import pytest
from row_samples import mined, negative

from causalneg.errors import UserError
from causalneg.examples import RowIds, read_selection, read_texts
from causalneg.records import Mined, Negative, Passage, Qrel, Query, Source
from causalneg.workspace import Workspace

QRELS = [Qrel(query_id="q", passage_id="p"), Qrel(query_id="q", passage_id="p2")]


def _made(tmp_path: Path, qrels: list[Qrel], candidates: list[Mined], generated: list[Negative]) -> Workspace:
    made = Workspace(str(tmp_path / "ws"))
    made.write_rows("qrels", "part-0", Qrel, qrels)
    # Two files each: places go on from one to the next.
    for number, rows in enumerate((candidates[:2], candidates[2:])):
        made.write_rows("mined", f"part-{number}", Mined, rows)
    for number, texts in enumerate((generated[:1], generated[1:])):
        made.write_rows("negatives", f"part-{number}", Negative, texts)
    return made


def test_mined_negatives_belong_to_the_query_and_generated_ones_to_the_pair(tmp_path: Path) -> None:
    generated = [negative(q, p, t) for q, p, t in (("q", "p2", "g1"), ("q", "p2", "g2"), ("other", "p", "g3"))]
    workspace = _made(
        tmp_path, QRELS, [mined("q", "a"), mined("other", "x"), mined("q", "b"), mined("q", "c")], generated
    )
    selection = read_selection(workspace, mined_per_query=2, generated_per_query=1)
    assert selection.rows == [RowIds("q", "p", ("a", "b"), ()), RowIds("q", "p2", ("a", "b"), (generated[0].id,))]
    assert (selection.count(Source.MINED), selection.count(Source.GENERATED)) == (4, 1)


def test_pairs_without_negatives_and_other_splits_are_no_rows(tmp_path: Path) -> None:
    qrels = [
        *QRELS,
        Qrel(query_id="r", passage_id="p"),
        Qrel(query_id="q", passage_id="p3", score=0),
        Qrel(query_id="q", passage_id="p4", split="test"),
    ]
    selection = read_selection(_made(tmp_path, qrels, [mined("q", "a")], []), 15, 3)
    assert [r.positive_id for r in selection.rows] == ["p", "p2"]
    assert selection.pairs == 3


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One query with a positive, a mined and a generated negative, and rows that nobody asks for."""
    made = Workspace(str(tmp_path / "ws"))
    made.write_rows("corpus", "part-0", Passage, [Passage(id=i, title="T", text=i) for i in ("p", "a", "other")])
    made.write_rows("queries", "part-0", Query, [Query(id="q", text="?"), Query(id="r", text="!")])
    made.write_rows("qrels", "part-0", Qrel, QRELS[:1])
    made.write_rows("mined", "part-0", Mined, [mined("q", "b", "rejected"), mined("q", "a")])
    made.write_rows("negatives", "part-0", Negative, [negative("q", "p", "g"), negative("q", "p", "x", "rejected")])
    return made


def test_only_the_texts_of_the_rows_are_read(workspace: Workspace) -> None:
    selection = read_selection(workspace, 15, 3)
    texts = read_texts(workspace, selection.rows)
    ((_, _, (a,), (g,)),) = [(r.query_id, r.positive_id, r.mined, r.generated) for r in selection.rows]
    assert texts.queries == {"q": "?"}
    assert {i: p.full_text for i, p in texts.passages.items()} == {"p": "T. p", "a": "T. a"}
    assert a == "a"
    assert {i: p.full_text for i, p in texts.generated.items()} == {g: "g"}


def test_none_are_read_where_none_are_asked_for(workspace: Workspace) -> None:
    assert [r.generated for r in read_selection(workspace, 15, 0).rows] == [()]
    assert [r.mined for r in read_selection(workspace, 0, 3).rows] == [()]
    assert read_selection(workspace, 0, 0).rows == []


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (RowIds("nobody", "p", ("a",), ()), ["query 'nobody'", "queries", "causalneg import"]),
        (RowIds("q", "p", ("gone",), ()), ["passage 'gone'", "corpus", "causalneg import"]),
        (RowIds("q", "p", (), ("gone",)), ["generated negative 'gone'", "negatives", "causalneg generate"]),
    ],
)
def test_a_text_that_is_not_there_is_named(workspace: Workspace, row: RowIds, parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        read_texts(workspace, [row])
    assert all(part in str(error.value) for part in parts)


def test_a_folder_of_another_version_is_named(workspace: Workspace) -> None:
    workspace.write_table("mined/part-9.parquet", pa.table({"other": [1]}))
    with pytest.raises(UserError, match=r"part-9\.parquet was written by another version"):
        read_selection(workspace, 15, 3)
