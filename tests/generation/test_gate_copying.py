"""What counts as copied: from the query, from a positive, from a mined passage."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.gates.copying import copied_from_reference, copied_runs, near_copy, query_copied, runs, tokens

TEXTS = st.text(alphabet="ab cdé,. 1日", max_size=60)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Café's roof", ["the", "cafe", "s", "roof"]),
        ("Cafe\u0301 au lait", ["cafe", "au", "lait"]),  # the accent as a character of its own
        ("1,250.5 km² and 34kg", ["1250.5", "km2", "and", "34", "kg"]),
        ("80% or 80 percent", ["80", "percent", "or", "80", "percent"]),
        ("3,14 in 2,000,000 cases", ["3,14", "in", "2000000", "cases"]),
        ("東京タワー is tall", ["東", "京", "タ", "ワ", "ー", "is", "tall"]),
        ("", []),
    ],
)
def test_tokens(text: str, words: list[str]) -> None:
    assert tokens(text) == words


def test_runs_keep_their_repetitions() -> None:
    assert list(runs(["a", "b", "a", "b"], 2)) == [("a", "b"), ("b", "a"), ("a", "b")]
    assert list(runs(["a"], 2)) == []


QUERY = "Which river flows between the Hudson and East Rivers?"  # nine words, seven runs of three


def test_the_share_of_the_querys_runs() -> None:
    text = "Structures cross the water between the Hudson and East Rivers."
    assert query_copied(text, QUERY, "Manhattan is an island.") == pytest.approx(4 / 7)
    assert copied_runs(text, QUERY, "") == [
        "between the hudson",
        "the hudson and",
        "hudson and east",
        "and east rivers",
    ]


def test_what_the_positive_says_in_the_same_words_is_not_counted() -> None:
    text = "Structures cross the water between the Hudson and East Rivers."
    assert query_copied(text, QUERY, "The Harlem River lies between the Hudson and the sound.") == pytest.approx(2 / 7)
    assert query_copied(text, QUERY, text) == 0


def test_a_short_query_has_runs_of_two_and_a_single_word_none() -> None:
    assert query_copied("Masterbatch is a spice.", "what is masterbatch", "A pigment.") == 0
    assert query_copied("What is masterbatch? A spice.", "what is masterbatch", "A pigment.") == 1
    assert query_copied("Masterbatch is a spice.", "masterbatch", "A pigment.") == 0
    assert query_copied("Masterbatch is a spice.", "", "A pigment.") == 0


def test_a_run_that_the_query_repeats_counts_once() -> None:
    assert query_copied("to be or not", "to be or not to be or", "") == pytest.approx(2 / 4)


def test_near_copy_counts_repetitions() -> None:
    assert near_copy("a b b", ["a b c"]) == pytest.approx(2 / 4)  # in common a, b; together a, b, b, c
    assert near_copy("b a", ["x", "a b"]) == 1
    assert near_copy("a", []) == 0


def test_near_copy_of_a_one_word_edit() -> None:
    positive = "Apollo 12 was the second mission to land astronauts on the Moon."
    edited = positive.replace("12", "14")
    assert near_copy(edited, [positive]) == pytest.approx(float(Fraction(11, 13)))


REFERENCE = "The bridge was opened in 1981 and was for sixteen years the longest of its kind in the world."


def test_a_reference_and_an_excerpt_of_it_are_copied() -> None:
    assert copied_from_reference(REFERENCE.upper(), ["Other.", REFERENCE]) == 1
    assert copied_from_reference("Opened in 1981, and was for sixteen years", [REFERENCE]) == 1
    assert copied_from_reference("opened in 1981", [REFERENCE]) == 1


def test_what_is_written_anew_is_not_copied() -> None:
    assert copied_from_reference("It opened when nobody had yet built another of its kind.", [REFERENCE]) == 0
    assert copied_from_reference("", [REFERENCE]) == 0
    assert copied_from_reference("opened in 1981", []) == 0


def test_runs_of_two_references_are_not_added_up() -> None:
    text = "one two three four five six"  # two runs of five
    assert copied_from_reference(text, ["one two three four five", "two three four five six"]) == 0.5


@given(TEXTS, TEXTS, TEXTS)
def test_scores_are_shares(text: str, other: str, third: str) -> None:
    assert 0 <= query_copied(text, other, third) <= 1
    assert 0 <= near_copy(text, [other, third]) <= 1
    assert 0 <= copied_from_reference(text, [other, third]) <= 1


@given(TEXTS, TEXTS)
def test_near_copy_is_symmetric_and_one_for_itself(text: str, other: str) -> None:
    assert near_copy(text, [other]) == near_copy(other, [text])
    assert near_copy(text, [text]) == 1


@given(TEXTS, TEXTS, TEXTS)
def test_a_positive_that_says_more_never_makes_a_text_more_copied(text: str, query: str, positive: str) -> None:
    assert query_copied(text, query, f"{positive} {query}") <= query_copied(text, query, "")
    assert query_copied(text, query, f"{positive} {text}") == 0
