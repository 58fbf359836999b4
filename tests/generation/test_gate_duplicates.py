"""Duplicates of a data set: the first wins, near ones are found, and nothing is compared with everything."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.gates.duplicates import (
    Deduplicator,
    rows_per_band,
    signature_rows,
    text_overlap,
)

WORDS = [f"word{i}" for i in range(400)]


def passage(seed: int, length: int = 100) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))  # noqa: S311


def edited(text: str, at: int, word: str = "changed") -> str:
    words = text.split()
    words[at] = word
    return " ".join(words)


def numbered(texts: list[str]) -> list[str]:
    return [f"n{i}" for i in range(len(texts))]


def find_duplicates(texts: list[str], threshold: float) -> dict[str, str]:
    """Keep each text that duplicates none before it; return the others with the one they duplicate."""
    known, found = Deduplicator(threshold), dict[str, str]()
    for id_, text in zip(numbered(texts), texts, strict=True):
        first = known.find(text)
        if first is None:
            known.add(id_, text)
        else:
            found[id_] = first
    return found


def test_a_signature_estimates_the_overlap() -> None:
    base = passage(0)
    other = edited(base, 50)
    assert signature_rows([base])[0].shape == (128,)
    assert signature_rows([base])[0].dtype == np.uint16
    assert text_overlap(base, other) == pytest.approx(95 / 101)  # 3 of 98 runs differ on either side
    assert (signature_rows([base])[0] == signature_rows([other])[0]).mean() == pytest.approx(95 / 101, abs=0.08)


@pytest.mark.parametrize(("threshold", "rows"), [(1.0, 32), (0.98, 16), (0.9, 8), (0.7, 4), (0.5, 2), (0.05, 1)])
def test_bands_miss_one_in_a_thousand_at_the_threshold(threshold: float, rows: int) -> None:
    assert rows_per_band(threshold) == rows
    assert rows == 1 or (1 - threshold**rows) ** (128 // rows) <= 1e-3


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Deduplicator(threshold)


def test_equal_but_for_case_punctuation_and_space() -> None:
    texts = ["One bridge, built in 1981.", "Another text", "one  BRIDGE built in 1981", "One bridge, built in 1982."]
    assert find_duplicates(texts, 0.98) == {"n2": "n0"}


def test_texts_without_words_are_equal_by_their_signs() -> None:
    assert find_duplicates(["!!!", "???", "!!! ", ""], 0.9) == {"n2": "n0"}


def test_the_threshold_parts_near_from_other() -> None:
    base = passage(0)
    texts = [base, edited(base, 50)]  # they overlap by 95 of 101
    assert find_duplicates(texts, 0.95) == {}
    assert find_duplicates(texts, 0.94) == {"n1": "n0"}


def test_the_first_that_stays_wins() -> None:
    base = passage(0)
    near, nearer, far = edited(base, 10), edited(edited(base, 10), 50), edited(edited(edited(base, 10), 50), 90)
    # `near` duplicates `base`. `nearer` is compared with what stays: base, 92 of 104. `far` is too far from it, and
    # what it is near to did not stay.
    texts = [base, near, nearer, far]
    assert find_duplicates(texts, 0.88) == {"n1": "n0", "n2": "n0"}


def test_a_copy_of_a_near_duplicate_leads_to_the_one_that_stays() -> None:
    base = passage(0)
    texts = [base, edited(base, 10), edited(base, 10).upper()]
    assert find_duplicates(texts, 0.9) == {"n1": "n0", "n2": "n0"}


def test_the_answer_is_that_of_comparing_all_with_all() -> None:
    draw = random.Random(5)  # noqa: S311
    texts = [passage(i % 40, 60) for i in range(200)]
    for _ in range(3):
        texts = [edited(t, draw.randrange(60), draw.choice(WORDS)) if draw.random() < 0.6 else t for t in texts]
    for threshold in (0.6, 0.8, 0.95):
        kept: list[int] = []
        expected = {}
        for i, text in enumerate(texts):
            first = next((j for j in kept if text_overlap(text, texts[j]) >= threshold), None)
            if first is None:
                kept.append(i)
            else:
                expected[f"n{i}"] = f"n{first}"
        assert find_duplicates(texts, threshold) == expected


def test_thousands_of_equal_texts_and_of_nearly_equal_ones() -> None:
    texts = [passage(1)] * 5000
    assert find_duplicates(texts, 0.98) == {f"n{i}": "n0" for i in range(1, 5000)}
    alike = [edited(passage(1), i % 100, f"word{i}") for i in range(1000)]
    found = find_duplicates(alike, 0.8)
    assert len(found) == 999
    assert set(found.values()) == {"n0"}


def test_nothing_has_no_duplicates() -> None:
    assert find_duplicates([], 0.9) == {}


TEXTS = st.lists(st.lists(st.sampled_from("ab"), max_size=6).map(" ".join), max_size=12)


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_each_duplicate_has_an_earlier_first_that_stays(texts: list[str], threshold: float) -> None:
    ids = numbered(texts)
    found = find_duplicates(texts, threshold)
    assert not set(found) & set(found.values())
    for duplicate, first in found.items():
        assert ids.index(first) < ids.index(duplicate)
        assert text_overlap(texts[ids.index(first)], texts[ids.index(duplicate)]) >= threshold


@given(TEXTS)
def test_appending_changes_nothing_before(texts: list[str]) -> None:
    before = find_duplicates(texts, 0.8)
    after = find_duplicates([*texts, "a b a"], 0.8)
    assert {i: f for i, f in after.items() if i != f"n{len(texts)}"} == before
