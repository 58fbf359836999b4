"""Source leakage: the probe finds what was planted, nothing where there is nothing, and takes no shortcut."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from causalneg.generation.reporting.leakage import (
    FoldedRanks,
    Probe,
    SourcedText,
    draw_mined,
    draw_queries,
    leakage,
    probe,
    reading,
)
from causalneg.generation.reporting.surface import feature_auc, feature_table, most_telling, surface_features
from causalneg.records import Passage, Source

DIMENSION = 32


def queries(count: int, each: int) -> list[str]:
    return [f"q{n}" for n in range(count) for _ in range(each)]


def noise(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, DIMENSION))


def labelled(count: int, each: int = 4) -> np.ndarray:
    """Return labels by which half of each query's texts are generated."""
    return np.tile(np.arange(each) < each // 2, count)


# The probe


def test_planted_leakage_is_found() -> None:
    labels = labelled(60)
    vectors = noise(240)
    vectors[labels, 3] += 4
    result = probe(vectors, labels, queries(60, 4), seed=0)
    assert result is not None
    assert result.auc > 0.98
    assert result.low > 0.95
    assert (result.mined, result.generated, result.queries) == (120, 120, 60)


def test_shuffled_labels_leave_chance_in_the_interval() -> None:
    held = 0
    for seed in range(20):
        labels = np.random.default_rng(seed).permutation(labelled(40))
        result = probe(noise(160, seed), labels, queries(40, 4), seed)
        assert result is not None
        assert result.low <= result.auc <= result.high
        held += result.low <= 0.5 <= result.high
    assert held >= 17


def test_a_query_s_topic_is_no_shortcut() -> None:
    # Every query has its topic, and the texts of one source alone: what was learnt of a query tells the rest of it.
    names = queries(30, 8)
    vectors = np.repeat(3 * noise(30, 1), 8, axis=0) + noise(240, 2)
    labels = np.repeat(np.arange(30) % 2 == 0, 8)
    leaky = probe(vectors, labels, [str(n) for n in range(240)], seed=0)
    grouped = probe(vectors, labels, names, seed=0)
    assert leaky is not None
    assert grouped is not None
    assert leaky.auc > 0.9
    assert grouped.low < 0.5 < grouped.high


def test_a_document_under_another_query_is_no_shortcut() -> None:
    # Each document is mined for one query and edited for another: whoever knows it from there takes it for the other.
    documents = noise(100, 3)
    vectors = np.concatenate([documents, documents + 0.01 * noise(100, 4)])
    labels = np.arange(200) >= 100
    names = [f"q{n}" for n in range(100)] + [f"q{(n + 7) % 100}" for n in range(100)]
    ids = [f"d{n}" for n in range(100)] * 2
    misled = probe(vectors, labels, names, seed=0)
    purged = probe(vectors, labels, names, seed=0, documents=ids)
    assert misled is not None
    assert purged is not None
    assert misled.high < 0.45
    assert purged.low < 0.5 < purged.high


def test_the_order_of_the_texts_decides_nothing() -> None:
    labels, names = labelled(30), np.array(queries(30, 4))
    vectors = noise(120)
    vectors[labels, 0] += 0.7
    order = np.random.default_rng(5).permutation(120)
    one = probe(vectors, labels, names.tolist(), seed=1)
    other = probe(vectors[order], labels[order], names[order].tolist(), seed=1)
    assert one is not None
    assert other is not None
    assert one.model_dump() == pytest.approx(other.model_dump(), abs=1e-6)
    assert probe(vectors, labels, names.tolist(), seed=1) == one


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        (np.zeros(0, bool), []),
        (np.zeros(40, bool), queries(10, 4)),
        (np.arange(40) < 9, queries(10, 4)),
        (labelled(3, 20), queries(3, 20)),
        # One query alone has generated texts: no fold has both sources to compare and to learn from.
        (np.arange(40) < 10, ["q0"] * 10 + queries(31, 1)[1:]),
    ],
)
def test_too_few_texts_are_no_result(labels: np.ndarray, groups: list[str]) -> None:
    assert probe(noise(len(labels)), labels, groups, seed=0) is None


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=25)
)
def test_weighted_auc_counts_pairs_within_folds(rows: list[tuple[int, bool, int, int]]) -> None:
    scores, labels, folds, weights = (np.array(column) for column in zip(*rows, strict=True))
    right = total = 0.0
    for (a, high, fold_a, weight_a), (b, low, fold_b, weight_b) in product(rows, rows):
        if high and not low and fold_a == fold_b:
            total += weight_a * weight_b
            right += weight_a * weight_b * ((a > b) + (a == b) / 2)
    got = FoldedRanks(scores.astype(float), labels, folds).auc(weights.astype(float))
    assert math.isnan(got) if total == 0 else got == pytest.approx(right / total)


# What is compared


def test_as_many_mined_are_drawn_as_wanted_and_none_twice() -> None:
    wanted = {"a": 2, "b": 3, "c": 1, "d": 2}
    mined = {"a": ["1", "2", "3"], "b": ["1", "2", "4", "5", "6"], "c": ["9"], "e": ["7"]}
    drawn = draw_mined(wanted, mined, seed=3)
    counts = Counter(query_id for query_id, _ in drawn)
    assert counts == {"a": 2, "b": 3, "c": 1}
    assert len({passage_id for _, passage_id in drawn}) == len(drawn)
    assert all(passage_id in mined[query_id] for query_id, passage_id in drawn)
    turned = {q: list(reversed(p)) for q, p in reversed(mined.items())}
    assert draw_mined(dict(reversed(wanted.items())), turned, seed=3) == drawn
    assert any(draw_mined(wanted, mined, seed) != drawn for seed in range(5))


def test_queries_are_drawn_until_there_are_enough() -> None:
    generated = {f"q{n}": n % 3 for n in range(30)}
    chosen = draw_queries(generated, limit=12, seed=0)
    total = sum(generated[q] for q in chosen)
    assert 12 <= total < 12 + 2
    assert len(set(chosen)) == len(chosen)
    assert all(generated[q] for q in chosen)
    assert set(draw_queries(generated, limit=10_000, seed=0)) == {q for q, n in generated.items() if n}
    assert draw_queries({}, limit=5, seed=0) == []


# The surface


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: 0 < sum(label for _, label in rows) < len(rows)
    )
)
def test_auc_of_a_feature_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    values, labels = np.array([v for v, _ in rows], float), np.array([g for _, g in rows])
    assert feature_auc(values, labels) == pytest.approx(roc_auc_score(labels, values))


def test_known_features_of_a_text() -> None:
    features = surface_features('It was "big", in 1971. It was (so) big!')
    assert features["words"] == 9
    assert features["characters"] == 39
    assert features["sentences"] == 2
    assert features["mean_sentence_length"] == 4.5
    assert features["mean_word_length"] == pytest.approx((2 + 3 + 3 + 2 + 4 + 2 + 3 + 2 + 3) / 9)
    assert features["distinct_words_share"] == pytest.approx(6 / 9)  # it was big in 1971 so
    assert features["digits"] == pytest.approx(1000 * 4 / 39)
    assert features["capitals"] == pytest.approx(1000 * 2 / 39)
    assert features["commas"] == pytest.approx(1000 / 39)
    assert features["quotes"] == pytest.approx(1000 * 2 / 39)
    assert features["brackets"] == pytest.approx(1000 * 2 / 39)
    assert features["punctuation"] == pytest.approx(1000 * 7 / 39)  # two quotes, two brackets, a comma, a stop, a mark
    assert features["ends_a_sentence"] == 1


@given(st.text())
def test_every_text_has_finite_features(text: str) -> None:
    features = surface_features(text)
    assert all(math.isfinite(value) for value in features.values())
    names, table = feature_table([text, ""])
    assert names == list(features)
    assert table.shape == (2, len(names))


WORDS = "river stone cloud engine paper window garden copper bridge harbour".split()


def sentences_of(rows: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, 12)) + "." for _ in range(rows)]


def test_a_planted_word_and_a_planted_mark_are_named() -> None:
    texts = sentences_of(200, 0)
    labels = np.arange(200) < 100
    marked = [f"Notably {t}" if n < 40 or n == 150 else t for n, t in enumerate(texts)]
    marked = [t.replace(" ", ", ", 3) if n >= 120 else t for n, t in enumerate(marked)]
    told = most_telling(marked, labels, limit=5)
    (word,) = (t for t in told if t.kind == "token")  # neither a pair with the word, nor a word as common in both
    assert (word.name, word.more_in, word.generated, word.mined) == ("notably", Source.GENERATED, 40, 1)
    assert word.auc == pytest.approx(0.5 + (0.4 - 0.01) / 2)
    commas = next(t for t in told if t.name == "commas")
    assert commas.more_in is Source.MINED
    assert commas.auc == pytest.approx(0.5 - 0.8 / 2)  # of the mined ones 80 have more than any generated one
    assert commas.generated == 0
    assert [abs(t.z) for t in told if t.kind == "feature"] == sorted((abs(t.z) for t in told[:-1]), reverse=True)


def test_the_z_of_a_word_is_that_of_the_paper() -> None:
    # 30 of 100 generated and 4 of 100 mined texts have the word; prior worth 50 texts, smoothed by half a text.
    texts = ["odd" if n < 30 or n >= 196 else "plain" for n in range(200)]
    told = {t.name: t for t in most_telling(texts, np.arange(200) < 100, 5)}
    prior = 50 * 34.5 / 201
    odds = [math.log((have + prior) / (100 - have + 50 - prior)) for have in (30, 4)]
    variance = sum(1 / (have + prior) + 1 / (100 - have + 50 - prior) for have in (30, 4))
    assert told["odd"].z == pytest.approx((odds[0] - odds[1]) / math.sqrt(variance))


def test_texts_of_one_query_count_as_one() -> None:
    # One query's 20 generated texts share a word: by texts it is telling, by queries it is not.
    texts = ["rare word." if n < 20 else "other word." for n in range(80)]
    labels = np.arange(80) < 40
    groups = ["q0"] * 20 + [f"q{n}" for n in range(20, 80)]
    assert "rare" in {t.name for t in most_telling(texts, labels, 10)}
    assert "rare" not in {t.name for t in most_telling(texts, labels, 10, groups)}


def test_equal_sources_tell_nothing() -> None:
    assert most_telling(sentences_of(400, 1), np.arange(400) % 2 == 0, 10) == []
    assert most_telling(["one source"] * 20, np.ones(20, bool), 10) == []
    assert most_telling([], np.zeros(0, bool), 10) == []


# The report


def sourced(count: int, leaky: str, each: int = 2) -> tuple[list[SourcedText], np.ndarray]:
    """Return texts of `count` queries whose negatives of one kind of violation, and those alone, can be told."""
    kinds = ("entity_shift", "intent_drift")
    texts: list[SourcedText] = []
    for n in range(count):
        for k in range(each):
            kind = kinds[k % 2]
            texts.append(SourcedText("A text.", f"q{n}", f"p{n}", "generated", "edit", kind, "replace"))
            texts.append(SourcedText("A text.", f"q{n}", f"m{n}-{k}", "mined"))
        texts.append(SourcedText("A text.", f"q{n}", f"p{n}", "positive"))
    vectors = noise(len(texts), 6)
    vectors[[t.violation == leaky for t in texts], 0] += 4
    return texts, vectors


def test_the_kind_that_leaks_is_named() -> None:
    texts, vectors = sourced(80, "entity_shift")
    report = leakage(texts, vectors, seed=0)
    assert (report.generated, report.mined, report.queries, report.unmatched) == (160, 160, 80, 0)
    leaky, clean = report.by_violation["entity_shift"], report.by_violation["intent_drift"]
    assert leaky is not None
    assert clean is not None
    assert leaky.auc > 0.95
    assert (leaky.generated, leaky.mined) == (80, 80)  # as many mined ones of the same queries
    assert clean.low < 0.5 < clean.high
    assert report.overall is not None
    assert clean.auc < report.overall.auc < leaky.auc
    # One mode and one operation make up everything, so theirs is the overall result.
    assert report.by_mode == {"edit": report.overall}
    assert report.by_operation == {"replace": report.overall}
    # Positives are compared with one mined text of their query each, and nothing was planted there.
    assert report.positives is not None
    assert (report.positives.generated, report.positives.mined) == (80, 80)
    assert report.positives.low < 0.5 < report.positives.high
    assert report.surface is not None
    assert report.surface.auc == pytest.approx(0.5)
    assert report.telling == []
    assert f"AUC {report.overall.auc:.2f}" in report.reading
    assert type(report).model_validate_json(report.model_dump_json()) == report


def test_queries_short_of_mined_negatives_are_counted() -> None:
    texts, vectors = sourced(40, "")
    kept = [n for n, t in enumerate(texts) if t.document_id not in {"m0-0", "m0-1", "m1-1"}]
    report = leakage([texts[n] for n in kept], vectors[kept], seed=0)
    assert (report.generated, report.mined, report.unmatched) == (80, 77, 3)
    assert report.overall is not None
    assert (report.overall.generated, report.overall.mined) == (80, 77)


def test_a_long_text_leaks_by_its_surface() -> None:
    texts, vectors = sourced(40, "")
    longer = [
        SourcedText("A text that goes on and on and on.", t.query_id, t.document_id, t.role, t.mode, t.violation)
        if t.role == "generated"
        else t
        for t in texts
    ]
    report = leakage(longer, vectors, seed=0)
    assert report.surface is not None
    assert report.surface.auc == 1
    assert report.overall is not None
    assert report.overall.low < 0.5 < report.overall.high
    assert {"words", "characters"} <= {t.name for t in report.telling if t.more_in is Source.GENERATED}


@pytest.mark.parametrize("roles", [[], ["generated"], ["mined"], ["positive"], ["generated", "mined"]])
def test_hardly_any_texts_make_a_report_without_results(roles: list[str]) -> None:
    texts = [SourcedText("text", "q", "d", role, "edit", "entity_shift") for role in roles]  # type: ignore[arg-type]
    report = leakage(texts, noise(len(texts)), seed=0)
    assert report.overall is report.surface is report.positives is None
    assert set(report.by_violation.values()) <= {None}
    assert "too few" in report.reading


def test_a_passage_is_shown_with_its_title() -> None:
    passage = Passage(id="p", title="Apollo 15", text="It flew.")
    made = SourcedText.of_passage("q", passage, "mined")
    assert (made.text, made.document_id, made.mode) == ("Apollo 15. It flew.", "p", None)


@pytest.mark.parametrize(
    ("auc", "low", "words"),
    [
        (0.52, 0.48, "No linear trace"),
        (0.40, 0.30, "No linear trace"),
        (0.57, 0.54, "can hardly be told"),
        (0.70, 0.66, "to some extent"),
        (0.80, 0.75, "mostly be told"),
        (0.97, 0.95, "nearly always"),
    ],
)
def test_readings(auc: float, low: float, words: str) -> None:
    text = reading(Probe(auc=auc, low=low, high=0.99, mined=50, generated=50, queries=20))
    assert words in text
    assert ("in place of relevance" in text) == (auc >= 0.75)
    assert text.count(". ") == 0
