"""The join of pairs with their negatives."""

from pathlib import Path

import pytest
from row_samples import mined, negative

from causalneg.errors import UserError
from causalneg.examples import GeneratedId, MinedId, RowIds, read_selection, read_texts, select_rows
from causalneg.records import Mined, Negative, Passage, Qrel, Query, Source
from causalneg.workspace import Workspace

QRELS = [Qrel(query_id="q", passage_id="p"), Qrel(query_id="q", passage_id="p2")]


def test_mined_negatives_belong_to_the_query_and_generated_ones_to_the_pair() -> None:
    selection = select_rows(
        QRELS,
        [MinedId("q", "a"), MinedId("other", "x"), MinedId("q", "b"), MinedId("q", "c")],
        [GeneratedId("q", "p2", "g1"), GeneratedId("q", "p2", "g2"), GeneratedId("other", "p", "g3")],
        mined_per_query=2,
        generated_per_query=1,
    )
    assert selection.rows == [RowIds("q", "p", ("a", "b"), ()), RowIds("q", "p2", ("a", "b"), ("g1",))]
    assert (selection.count(Source.MINED), selection.count(Source.GENERATED)) == (4, 1)


def test_pairs_without_negatives_and_other_splits_are_no_rows() -> None:
    qrels = [
        *QRELS,
        Qrel(query_id="r", passage_id="p"),
        Qrel(query_id="q", passage_id="p3", score=0),
        Qrel(query_id="q", passage_id="p4", split="test"),
    ]
    selection = select_rows(qrels, [MinedId("q", "a")], [], 15, 3)
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
