"""Near-duplicates: what is the same text, and how well MinHash estimates an overlap."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.duplicates import PERMUTATIONS, normalised, overlap, shingles, signatures


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Eagle landed.", "eagle  LANDED"),
        ("a, b; c: d e", "a b c d e"),
        ("ﬁne ½", "fine 1⁄2"),  # noqa: RUF001
        ("¡Sí!", "sí"),
    ],
)
def test_texts_that_differ_in_form_alone_are_the_same(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    first, second = signatures([one, other])
    assert overlap(first, second[None])[0] == 1


def test_the_overlap_is_estimated_within_its_error() -> None:
    rng = random.Random(2)  # noqa: S311
    errors = []
    for _ in range(60):
        words = [rng.choice("abcdefghijklmnop") * rng.randint(1, 6) for _ in range(80)]
        changed = [w if rng.random() > 0.05 else "changed" for w in words]
        one, other = " ".join(words), " ".join(changed)
        true = len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))
        first, second = signatures([one, other])
        errors.append(overlap(first, second[None])[0] - true)
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 1 / np.sqrt(PERMUTATIONS)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_a_signature_depends_on_its_text_alone(texts: list[str]) -> None:
    together = signatures(texts)
    assert together.shape == (len(texts), PERMUTATIONS)
    np.testing.assert_array_equal(together, np.concatenate([signatures([t]) for t in texts]))


def test_texts_without_words_are_told_apart() -> None:
    rocket, wave, none = signatures(["🚀", "🌊 🌊", ""])
    assert overlap(rocket, np.stack([wave, none])).max() < 0.2


def test_no_texts_have_no_signatures() -> None:
    assert signatures([]).shape == (0, PERMUTATIONS)
