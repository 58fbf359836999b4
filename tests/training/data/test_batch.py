"""Batches: padded by mask, sources from the rows, texts once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from causalneg.training.data.batch import make_batch, row_tokens
from causalneg.training.data.store import ARRAYS, Data, write_facts

# A row: query, positive, negatives with whether they are generated, mask of their rules.
Row = tuple[int, int, Sequence[tuple[int, bool, int]]]


def _store(folder: Path, rows: Sequence[Row], keys: Sequence[int], known: Sequence[Sequence[int]] = ()) -> Data:
    """Write a store by hand; passage n has n + 1 tokens."""
    folder.mkdir()
    negatives = [n for _, _, own in rows for n in own]
    queries = max(q for q, _, _ in rows) + 1
    known = known or [[] for _ in range(queries)]
    lengths = np.arange(1, len(keys) + 1)
    values: dict[str, object] = {
        "query.tokens": np.ones(2 * queries),
        "query.start": 2 * np.arange(queries + 1),
        "query.key": np.arange(queries),
        "passage.tokens": np.ones(lengths.sum()),
        "passage.start": np.cumsum([0, *lengths]),
        "passage.key": keys,
        "row.query": [q for q, _, _ in rows],
        "row.positive": [p for _, p, _ in rows],
        "row.teacher": np.full(len(rows), 2.0),
        "row.start": np.cumsum([0, *(len(own) for _, _, own in rows)]),
        "negative.passage": [n for n, _, _ in negatives],
        "negative.generated": [g for _, g, _ in negatives],
        "negative.rules": [r for _, _, r in negatives],
        "negative.teacher": np.arange(len(negatives)),
        "known.start": np.cumsum([0, *map(len, known)]),
        "known.passage": [p for own in known for p in own],
    }
    for name, dtype in ARRAYS.items():
        (folder / name).write_bytes(np.asarray(values.get(name, []), dtype).tobytes())
    write_facts(folder, {})
    return Data(folder)


def _row(query: int, positive: int, mined: Sequence[int], generated: Sequence[int]) -> Row:
    return query, positive, [(n, False, 0) for n in mined] + [(n, True, 0) for n in generated]


def _negatives(batch: object, row: int) -> list[int]:
    return [int(batch.passages[i]) for i in batch.negatives[row][batch.mask[row]]]  # type: ignore[attr-defined]


def test_padding_draws_nothing_again(tmp_path: Path) -> None:
    # The published code fills short rows by resampling, which can draw the positive as a negative.
    rows = [_row(0, 0, [1], []), _row(1, 2, range(3, 18), [18, 19, 20]), _row(2, 21, [], [22, 23])]
    batch = make_batch(_store(tmp_path / "d", rows, range(24)), np.arange(3))
    for r, (_, positive, negatives) in enumerate(rows):
        assert batch.passages[batch.positive[r]] == positive
        assert _negatives(batch, r) == [n for n, _, _ in negatives]
        assert positive not in _negatives(batch, r)
    assert batch.mask.sum(axis=1).tolist() == [1, 18, 2]


def test_source_follows_from_the_row_and_not_from_position(tmp_path: Path) -> None:
    # The published code takes the first 15 places for mined ones: with 14 it files a generated one as mined.
    rows = [_row(0, 0, range(1, 15), [15, 16, 17]), _row(1, 18, range(1, 16), [19, 20, 21])]
    batch = make_batch(_store(tmp_path / "d", rows, range(22)), np.arange(2))
    assert batch.generated.sum(axis=1).tolist() == [3, 3]
    assert np.flatnonzero(batch.generated[0]).tolist() == [14, 15, 16]
    mixed = [(0, 0, [(1, True, 0), (2, False, 0)])]
    assert make_batch(_store(tmp_path / "m", mixed, range(3)), np.arange(1)).generated.tolist() == [[True, False]]


def test_passages_with_the_same_tokens_are_one(tmp_path: Path) -> None:
    rows = [_row(0, 0, [1, 2], []), _row(1, 3, [2, 4], [])]
    batch = make_batch(_store(tmp_path / "d", rows, [7, 8, 9, 7, 8]), np.arange(2))  # 3 is 0 again, and 4 is 1
    assert len(batch.passages) == 3
    assert batch.positive[0] == batch.positive[1]
    assert batch.negatives[0].tolist() == batch.negatives[1][::-1].tolist()


def test_known_positives_are_found_among_the_passages(tmp_path: Path) -> None:
    rows = [_row(0, 0, [1], []), _row(1, 2, [3], [])]
    # The first query also has passage 2, and one that is not in the batch; 4 has the tokens of 3.
    batch = make_batch(_store(tmp_path / "d", rows, [10, 11, 12, 13, 13, 15], [[0, 2, 5], [2, 4]]), np.arange(2))
    found = {(int(r), int(batch.passages[p])) for r, p in batch.known.T}
    assert found == {(0, 0), (0, 2), (1, 2), (1, 3)}


def test_negatives_of_a_rule_are_left_out(tmp_path: Path) -> None:
    rows: list[Row] = [(0, 0, [(1, False, 0b01), (2, True, 0b10), (3, True, 0b11)])]
    data = _store(tmp_path / "d", rows, range(4))
    assert _negatives(make_batch(data, np.arange(1)), 0) == [1, 2, 3]
    batch = make_batch(data, np.arange(1), without=0b10)
    assert _negatives(batch, 0) == [1]
    assert 2 not in batch.passages
    assert batch.rules[batch.mask].tolist() == [0b01]
    assert make_batch(data, np.arange(1), without=0b11).mask.sum() == 0


def test_scores_of_the_teacher_are_none_where_there_is_no_negative(tmp_path: Path) -> None:
    rows = [_row(0, 0, [1, 2], []), _row(1, 3, [4], [])]
    batch = make_batch(_store(tmp_path / "d", rows, range(5)), np.array([1, 0]))
    np.testing.assert_array_equal(batch.teacher, [[2, 2, np.nan], [2, 0, 1]])


@pytest.mark.parametrize("mined", [[], [1, 2]])
def test_rows_without_negatives_anywhere_have_a_batch(tmp_path: Path, mined: list[int]) -> None:
    data = _store(tmp_path / "d", [_row(0, 0, mined, [])], range(3))
    batch = make_batch(data, np.arange(1))
    assert batch.mask.sum() == len(mined)
    assert row_tokens(data, np.arange(1)).tolist() == [2 + 1 + sum(n + 1 for n in mined)]
