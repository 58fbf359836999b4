"""Rows, order, slices and padding."""

import numpy as np
import pytest

from causalneg.examples import RowIds, Texts
from causalneg.records import Passage, Source
from causalneg.training.batch import (
    NegativeText,
    TrainingRow,
    micro_batches,
    pad,
    row_order,
    steps_per_epoch,
    with_texts,
    worker_slice,
)


def _row(mined_count: int, generated_count: int, name: str = "") -> TrainingRow:
    return TrainingRow(
        f"query {name}",
        f"positive {name}",
        (
            *(NegativeText(f"mined {name} {i}", Source.MINED) for i in range(mined_count)),
            *(NegativeText(f"generated {name} {i}", Source.GENERATED) for i in range(generated_count)),
        ),
    )


def test_texts_take_the_place_of_ids_and_carry_their_source() -> None:
    passages = {i: Passage(id=i, title="T", text=i) for i in ("p", "a")}
    texts = Texts({"q": "?"}, passages, {"g1": Passage(id="g1", text="g")})
    (row,) = with_texts([RowIds("q", "p", ("a",), ("g1",))], texts)
    assert row == TrainingRow("?", "T. p", (NegativeText("T. a", Source.MINED), NegativeText("g", Source.GENERATED)))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = row_order(50, 1, 0).tolist()
    assert first == row_order(50, 1, 0).tolist()
    assert sorted(first) == list(range(50))
    assert first != row_order(50, 1, 1).tolist()
    assert first != row_order(50, 2, 0).tolist()
    assert sorted(row_order(5, -3, 0).tolist()) == list(range(5))


@pytest.mark.parametrize(("rows", "size"), [(16, 1), (16, 2), (7, 3), (1, 4), (2, 4)])
def test_slices_cover_the_batch_once_and_differ_by_at_most_one(rows: int, size: int) -> None:
    batch = list(range(100, 100 + rows))
    parts = [worker_slice(batch, rank, size) for rank in range(size)]
    assert [i for part in parts for i in part] == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_last_short_batch_counts() -> None:
    assert [steps_per_epoch(n, 16) for n in (1, 16, 17)] == [1, 1, 2]


def test_padding_draws_nothing_again() -> None:
    # The published code fills short rows by resampling, which can draw the positive as a negative.
    rows = [_row(1, 0, "short"), _row(15, 3, "long"), _row(0, 2, "generated")]
    batch = pad(rows)
    for r, row in enumerate(rows):
        assert batch.passages[batch.positive[r]] == row.positive
        kept = [batch.passages[i] for i in batch.negatives[r][batch.mask[r]]]
        assert kept == [n.text for n in row.negatives]
        assert row.positive not in kept


def test_source_follows_from_the_row_and_not_from_position() -> None:
    # The published code takes the first 15 places for mined ones: with 14 it files a generated one as mined.
    batch = pad([_row(14, 3), _row(15, 3)])
    assert batch.generated.sum(axis=1).tolist() == [3, 3]
    assert np.flatnonzero(batch.generated[0]).tolist() == [14, 15, 16]
    mixed = TrainingRow("q", "p", (NegativeText("g", Source.GENERATED), NegativeText("m", Source.MINED)))
    assert pad([mixed]).generated.tolist() == [[True, False]]


def test_a_text_that_occurs_twice_is_held_once() -> None:
    batch = pad([_row(2, 0), _row(2, 0)])
    assert batch.passages == ["positive ", "mined  0", "mined  1"]
    assert batch.negatives.tolist() == [[1, 2], [1, 2]]


def test_micro_batches_keep_every_row_and_their_bound() -> None:
    rows = [_row(n, 0, str(n)) for n in (3, 1, 5, 30, 2, 2)]
    parts = list(micro_batches(rows, 10))
    assert [row for part in parts for row in part] == rows
    assert [len(part) for part in parts] == [2, 1, 1, 2]
    assert list(micro_batches([], 10)) == []
