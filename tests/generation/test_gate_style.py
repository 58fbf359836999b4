"""How far a text is from the style of a corpus, and what betrays it by its form."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.gates.style import (
    FEATURES,
    CorpusStyle,
    corpus_style,
    form_defects,
    longest_repeated_run,
    style_distance,
    style_distances,
)

PLACES = "Lyon Turin Porto Ghent Basel Graz Lund Bergen Brno Split Trieste Parma".split()
THINGS = "bridge tower library station theatre market harbour garden".split()
CORPUS = [
    f"The {thing} of {place} was built in {1800 + 7 * i + j}, and it stands near the old {THINGS[j - 3]} of the town. "
    f"Most of the visitors come by train in the summer, and some of them stay for the {THINGS[j - 5]}."
    for i, place in enumerate(PLACES)
    for j, thing in enumerate(THINGS)
]
STYLE = corpus_style(CORPUS)
PLAIN = CORPUS[17]

GERMAN = (
    "Die Stadt liegt an einem Fluss, der im Norden des Landes entspringt und nach zweihundert Kilometern mündet. "
    "Heute leben dort ungefähr dreihunderttausend Menschen, von denen die meisten im Handel arbeiten."
)


def test_a_corpus_of_one_text_has_its_features_as_medians() -> None:
    style = corpus_style(["Ab cd. Ef 12!"])
    medians = {name: spread.median for name, spread in style.spreads.items()}
    assert medians["share of punctuation"] == pytest.approx(2 / 10)
    assert medians["share of digits"] == pytest.approx(2 / 10)
    assert medians["share of capitals"] == pytest.approx(2 / 6)
    assert medians["share of function words"] == pytest.approx(3 / 4)  # all but the number
    assert medians["share of distinct words"] == 1
    assert medians["share of letters of another script"] == 0
    assert (style.passages, style.scripts, style.marks) == (1, ("LATIN",), "!.")


def test_the_spread_of_a_feature_never_falls_below_its_floor() -> None:
    alike = corpus_style([PLAIN] * 50)
    for feature in FEATURES:
        spread = alike.spreads[feature.name]
        assert spread.below == spread.above == pytest.approx(feature.floor * (1 + 4 / 50))


def test_the_spread_follows_the_tail_of_its_side() -> None:
    texts = ["word " * 20 + "end."] * 90 + ["word " * 200 + "end."] * 10
    spread = corpus_style(texts).spreads["words per passage"]
    assert spread.above > 5 * spread.below


def test_a_style_is_the_same_for_the_same_seed_and_survives_json() -> None:
    assert corpus_style(CORPUS, seed=3, sample=40) == corpus_style(CORPUS, seed=3, sample=40)
    assert corpus_style(CORPUS, seed=3, sample=40) != corpus_style(CORPUS, seed=4, sample=40)
    read = CorpusStyle.model_validate_json(STYLE.model_dump_json())
    assert read == STYLE
    assert style_distances(GERMAN, read, PLAIN) == style_distances(GERMAN, STYLE, PLAIN)


@pytest.mark.parametrize("texts", [[], ["", " ", "..."]])
def test_a_corpus_without_words_has_no_style(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="words"):
        corpus_style(texts)


def test_passages_of_the_corpus_are_near() -> None:
    assert max(style_distance(text, STYLE, PLAIN)[0] for text in CORPUS) < 3


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        (" ".join([PLAIN] * 6), "words in the longest repeated run"),
        ("The tower of Lyon.", "words per passage"),
        (PLAIN.replace(".", "").replace(",", "") + " " + CORPUS[40].replace(".", ""), "words per sentence"),
        (PLAIN.upper(), "share of capitals"),
        (PLAIN.replace(" ", ", "), "share of punctuation"),
        (PLAIN.replace(",", " —").replace("the ", "the “").replace(" of", "” of"), "marks that are rare in the corpus"),
        (PLAIN.replace("Most of the visitors", "In 1911, 1912, 1913, 1914 and 1915 visitors"), "share of digits"),
        ("Ο πύργος της πόλης είναι παλιός. " + PLAIN, "share of letters of another script"),  # noqa: RUF001
        (GERMAN, "share of words known to the corpus"),
        (GERMAN, "share of function words"),
        ("old town old town train old town train town old " * 4 + "town.", "share of distinct words"),
    ],
)
def test_what_is_unlike_the_corpus_is_far_in_that_feature(text: str, feature: str) -> None:
    assert style_distances(text, STYLE, PLAIN)[feature] >= 3
    assert style_distances(PLAIN, STYLE, CORPUS[40])[feature] < 3


def test_the_reason_names_the_farthest_feature_in_words() -> None:
    distance, reason = style_distance(PLAIN.upper(), STYLE, PLAIN)
    assert distance > 10
    assert reason.startswith("share of capitals: 100.0 %, in the corpus mostly ")
    assert style_distance(PLAIN, STYLE, PLAIN) == (0.0, "")


def test_the_positive_widens_the_allowance() -> None:
    lone, shouted = style_distance(PLAIN.upper(), STYLE, PLAIN)[0], PLAIN.upper()
    assert style_distances(shouted, STYLE, CORPUS[40].upper())["share of capitals"] < 0.1 * lone
    half = PLAIN[:80] + PLAIN[80:].upper()
    assert 0 < style_distances(shouted, STYLE, half)["share of capitals"] < lone


def test_a_positive_that_deviates_to_the_other_side_allows_nothing() -> None:
    short, long = "The tower of Lyon.", " ".join(CORPUS[:6])
    allowed = style_distances(short, STYLE, long)["words per passage"]
    assert allowed == style_distances(short, STYLE, PLAIN)["words per passage"] > 3


@given(st.text(max_size=300), st.text(max_size=300))
def test_distances_are_not_negative_and_none_to_itself(text: str, reference: str) -> None:
    assert all(d >= 0 for d in style_distances(text, STYLE, reference).values())
    assert set(style_distances(text, STYLE, text).values()) == {0.0}
    distance, reason = style_distance(text, STYLE, reference)
    assert bool(reason) == (distance > 0)


@pytest.mark.parametrize(
    ("words", "longest"),
    [("a b c a b d", 2), ("a b c", 0), ("a a a a", 3), ("a", 0), ("", 0), ("a b c d a b c d", 4)],
)
def test_longest_repeated_run(words: str, longest: int) -> None:
    assert longest_repeated_run(words.split()) == longest


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_longest_repeated_run_is_that_of_trying_all(words: list[str]) -> None:
    repeated = [
        length
        for length in range(1, len(words))
        if len({tuple(words[i : i + length]) for i in range(len(words) - length + 1)}) < len(words) - length + 1
    ]
    assert longest_repeated_run(words) == max(repeated, default=0)


def test_the_longest_repeated_run_of_a_long_text_is_cut() -> None:
    assert longest_repeated_run(["a"] * 20000) == 32


GOOD = 'The Humber Bridge (1981) is 2,220 m long. It was, as one engineer said, "a bold design."'

# A text with a defect, the beginning of its name, and one that comes near without having it.
DEFECTS = [
    ("As an AI, I know the Humber.", "talks about itself: «As an AI»", "As an aide, he knew the Humber."),
    (
        "This passage does not name it.",
        "talks about itself: «This passage does not»",
        "In the play this passage is long.",
    ),
    (
        "It has no bearing on the query.",
        "talks about itself: «the query»",
        "A bridge has no bearing on the queryable index.",
    ),
    ("A counterfactual bridge was built.", "talks about itself: «counterfactual»", "A fact of bridges was noted."),
    ("In this rewritten text it is red.", "talks about itself: «In this rewritten»", "In this town it is red."),
    ("It is red. Note: it was blue.", "talks about itself: «Note:»", "Red it is. A note: it was blue."),
    ("Here is a bridge.", "talks about itself: «Here is»", "Where here is, nobody knows."),
    ("Sure, the bridge is red.", "talks about itself: «Sure,»", "Surely, the bridge is red."),
    ("Passage 1: The bridge is red.", "talks about itself: «Passage 1:»", "Passage 1 is closed: the bridge is red."),
    ("I'm sorry, it is red.", "talks about itself: «I'm sorry»", "Helen said I'm sorry, it is red."),
    ("Es ist, als KI gesagt, rot.", "talks about itself: «als KI»", "Es ist, als Kino gesagt, rot."),
    ("作为一个AI，我知道。", "talks about itself: «作为一个AI»", "作为一个人，我知道。"),  # noqa: RUF001
    ("```\nThe bridge is red.\n```.", "code fence", "The `bridge` is red."),
    ("## Bridges\nThe bridge is red.", "heading mark", "The #1 bridge is red."),
    ("It is:\n- red.\n- blue.", "list item", "Red - and blue."),
    ("It is:\n1. red.\n2. blue.", "list item", "Bridges have 1. red 2. blue."),
    ("The **bridge** is red.", "emphasis mark", "The 2 ** 3 bridge is red."),
    ("The [bridge](https://a.b) is red.", "link mark", "The [bridge] (red) is long."),
    ("The bridge.\n| a | b |\nIt is red.", "table row", "The |a| of b is red."),
    ("The bridge of [ENTITY] is red.", "placeholder: «[ENTITY]»", "The bridge of [USA] is red."),
    ("It was built in ____.", "placeholder: «____»", "The bridge a_b is red."),
    ("It was built by [insert name].", "placeholder: «[insert name]»", "The bridge [sic] is red."),
    ("The bridge<br> is red.", "markup or data remnant: «<br>»", "The bridge is < 3 m and > 2 m long."),
    ("Red &amp; blue.", "markup or data remnant: «&amp;»", "Red & blue; green."),
    ('{"text": "The bridge is red."', "markup or data remnant", 'The text was "red".'),
    ("The bridge is red.<|im_end|>.", "markup or data remnant: «<|im_end|>»", "The bridge is |red|."),
    ("The bridge , which is red.", "space before punctuation", "The bridge . . . is red."),
    ("The bridge is red.It is long.", "missing space: «red.It»", "The bridge of Mr.T is red."),
    ("The bridge,which is red.", "missing space", "The bridge cost 1,250 pounds."),
    ("The bridge    is red.", "run of spaces", "The bridge  is red."),
    ("The b r i d g e is red.", "spaced letters", "The A B C is red."),
    ("The br\ufffddge is red.", "garbled character", "The brîdge is red."),
    ("The cafÃ© is red.", "garbled character", "The café is red."),
    ("The the bridge is red.", "doubled word: «The the»", "Lighting Lighting is deliberate."),
    ("The bridge is is red.", "doubled word: «is is»", "Helen had had a Full House house."),
    ("The bridge is red and", "ends in the middle of a sentence", "The bridge is red [1]."),
    ("The bridge is red...", "ends in the middle of a sentence", "Helen said: “The bridge is red!”"),
    ("橋は赤い", "ends in the middle of a sentence", "橋は赤い。"),
    ("and the bridge is red.", "opens in the middle of a sentence", "(And the bridge is red.)"),
    (", which is red.", "opens in the middle of a sentence", "«The bridge» is red."),
    ("He built the bridge.", "opens with a word that points to nothing", "Helen built the bridge."),
    ("It is long.", "opens with a word that points to nothing", "It is said that he built it."),
    ('The "bridge is red.', "unbalanced quotes", 'The 6" bridge is red.'),
    ("The (red bridge is long.", "unbalanced brackets ()", "The (red) bridge is long."),
    ("橋「赤い。", "unbalanced brackets 「」", "橋「赤い」。"),
    ("", "no text", "Red."),
]


@pytest.mark.parametrize(("text", "defect", "near"), DEFECTS)
def test_each_defect_is_named_and_what_comes_near_has_it_not(text: str, defect: str, near: str) -> None:
    assert any(found.startswith(defect) for found in form_defects(text, GOOD)), form_defects(text, GOOD)
    assert form_defects(near, GOOD) == []


def test_quotation_marks_are_as_loose_as_those_of_the_positive() -> None:
    loose = 'The Thrawn" trilogy, also known as the Heir to the Empire" trilogy, is a series of novels by "Zahn".'
    assert form_defects('The Conquerors" trilogy is a series of novels.', loose) == []
    assert form_defects('The Conquerors" trilogy is a series of novels.', 'The "Thrawn" trilogy is long.') != []


@pytest.mark.parametrize("text", [text for text, _, _ in DEFECTS if text])
def test_what_the_positive_does_is_no_defect(text: str) -> None:
    assert form_defects(text, text) == []


def test_a_good_text_has_no_defects() -> None:
    assert form_defects(GOOD, "Another text.") == []


def test_defects_add_up() -> None:
    assert form_defects("Sure, the the bridge (red", GOOD) == [
        "talks about itself: «Sure,»",
        "doubled word: «the the»",
        "ends in the middle of a sentence",
        "unbalanced brackets ()",
    ]


@given(st.text(max_size=200))
def test_a_text_has_no_defect_beside_itself(text: str) -> None:
    assert form_defects(text, text) == ([] if text.strip() else ["no text"])


def _rows(path: Path, suffix: str) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(suffix))
        return [json.loads(line) for line in archive.read(name).decode().splitlines()]


def test_careful_counterfactuals_pass(shared_data: Path) -> None:
    corpus = {row["_id"]: row for row in _rows(shared_data / "squad.zip", "corpus.jsonl")}
    style = corpus_style([f"{row['title']}. {row['text']}" for row in corpus.values()])
    far = defects = total = 0
    for row in _rows(shared_data / "squad-negatives.zip", "negatives.jsonl"):
        positive = corpus[row["positive_id"]]
        for negative in row["counterfactual"]:
            text = negative["text"]
            total += 1
            far += style_distance(text, style, f"{positive['title']} {positive['text']}")[0] >= 3
            defects += bool(form_defects(text.removeprefix(positive["title"]).strip(), positive["text"]))
    assert total == 1080
    assert far / total <= 0.01
    assert defects / total <= 0.01
