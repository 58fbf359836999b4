"""Contrast sets: reading, scoring and figures against values worked out by hand."""

import gzip
import json
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_samples import tiny_encoder

from causalneg.embedding import load_encoder
from causalneg.errors import UserError
from causalneg.evaluation import contrast
from causalneg.evaluation.contrast import ContrastPair, compare, read_pairs, score_pairs, summarise
from causalneg.models import resolve

ROWS = [
    {"query": "q", "positive": "a", "counterfactual": "b", "violation": "time", "meta": {"cf_label": "no", "page": 7}},
    {"query": "q", "positive": "c", "counterfactual": "d", "meta": {"cf_label": "no"}, "page": "p"},
    {"query": "r", "positive": "c\u2028", "counterfactual": "e"},
]
PAIRS = [
    ContrastPair(query="q", positive="a", counterfactual="b", group="time", cluster="7"),
    ContrastPair(query="q", positive="c", counterfactual="d", group="no", cluster="p"),
    ContrastPair(query="r", positive="c\u2028", counterfactual="e"),
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"


def _zipped(path: Path, names: list[str], content: str = LINES) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, content)
    return path


# Reading


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".zip"])
def test_the_same_pairs_are_read_however_they_are_packed(tmp_path: Path, suffix: str) -> None:
    path, data = tmp_path / f"pairs{suffix}", b"\xef\xbb\xbf" + LINES.encode()
    if suffix == ".zip":
        _zipped(path, ["folder/pairs.jsonl", "folder/readme.md"])
    elif suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]))
    elif suffix.endswith(".zst"):
        path.write_bytes(pa.compress(data, "zstd", asbytes=True))
    else:
        path.write_bytes(data)
    assert read_pairs(str(path)) == PAIRS


def test_groups_and_clusters_are_read_from_the_fields_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(LINES)
    pairs = read_pairs(str(path), group=["nowhere", "meta.page", "positive"], cluster=[])
    assert [(pair.group, pair.cluster) for pair in pairs] == [("7", ""), ("c", ""), ("c\u2028", "")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"query": "q", "positive": "p"}', "field 'counterfactual' is missing"),
        ('{"query": "q", "positive": null, "counterfactual": "c"}', "field 'positive' is missing"),
        ('{"query": " ", "positive": "p", "counterfactual": "c"}', "field 'query' is empty"),
        ('{"query": ["q"], "positive": "p", "counterfactual": "c"}', "field 'query' is no text but a list"),
        ('{"query": "\\ud800", "positive": "p", "counterfactual": "c"}', "field 'query' holds half a character"),
        ('{"query": "q", "positive": "p", "counterfactual": "c", "violation": ["a"]}', "'violation' is no text but"),
        ('{"query": "q", "positive": "p", "counterfactual": "c", "meta": {"page": {}}}', "'meta.page' is no text"),
        ('["q", "p", "c"]', "a JSON object is needed, not a list"),
        ('{"query": "q"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"query": "\xff"}', "not valid JSON"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_broken_row_is_named_by_file_line_and_field(tmp_path: Path, line: str, reason: str, packed: bool) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(LINES + line, encoding="latin-1" if "\xff" in line else "utf-8", errors="replace")
    where = str(path)
    if packed:
        with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
            archive.write(path, "pairs.jsonl")
        where = f"{tmp_path}/pairs.zip/pairs.jsonl"
    with pytest.raises(UserError) as error:
        read_pairs(str(tmp_path / "pairs.zip" if packed else path))
    assert f"{where}, line 5: " in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: folder / "none.jsonl", "cannot be read"),
        (lambda folder: folder, "cannot be read"),
        (lambda folder: _zipped(folder / "a.zip", []), "holds 0 files"),
        (lambda folder: _zipped(folder / "b.zip", ["a.jsonl", "b/c.jsonl"]), "holds 2 files"),
        (lambda folder: _zipped(folder / "c.zip", ["a.jsonl"], " \n"), "holds no pair"),
    ],
)
def test_a_file_without_pairs_is_named(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    path = make(tmp_path)
    with pytest.raises(UserError, match=reason) as error:
        read_pairs(str(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".zip"])
def test_a_file_cut_off_is_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(97, 122, (400, 100), np.uint8)
    data = "".join(json.dumps({**ROWS[0], "positive": bytes(row).decode()}) + "\n" for row in noise).encode()
    path = tmp_path / f"pairs.jsonl{suffix}"
    if suffix == ".zip":
        _zipped(path, ["pairs.jsonl"], data.decode())
    else:
        path.write_bytes(gzip.compress(data) if suffix == ".gz" else pa.compress(data, "zstd", asbytes=True))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"cannot be read .*is the file whole\?|is neither a folder nor a whole zip"):
        read_pairs(str(path))


def test_hidden_files_of_a_zip_are_no_pairs(tmp_path: Path) -> None:
    names = ["x/pairs.jsonl", "__MACOSX/x/._pairs.jsonl", "x/.pairs.jsonl", "x/notes.txt"]
    assert len(read_pairs(str(_zipped(tmp_path / "a.zip", names)))) == len(ROWS)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz", "pairs.ndjson"])
def test_compression_is_told_by_the_content(tmp_path: Path, name: str) -> None:
    for content in (LINES.encode(), gzip.compress(LINES.encode()), pa.compress(LINES.encode(), "zstd", asbytes=True)):
        (tmp_path / name).write_bytes(content)
        assert len(read_pairs(str(tmp_path / name))) == len(ROWS)


# Figures


def _pairs(groups: str, clusters: str = "") -> list[ContrastPair]:
    """One pair per letter; without clusters each is its own."""
    return [
        ContrastPair(
            query=f"q{n}", positive="p", counterfactual="c", group=g.strip(), cluster=clusters[n : n + 1].strip()
        )
        for n, g in enumerate(groups)
    ]


def test_figures_agree_with_those_worked_out_by_hand() -> None:
    scores = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.375], [0.5, 0.375]], np.float32)
    result = summarise(_pairs("bba "), scores, seed=0)
    assert (result.overall.pairs, result.overall.ties) == (4, 1)
    assert result.overall.accuracy == (1 + 0.5 + 0 + 1) / 4
    assert result.overall.margin == (0.5 + 0 - 0.125 + 0.125) / 4
    assert {g: (f.pairs, f.accuracy, f.margin) for g, f in result.by_group.items()} == {
        "a": (1, 0.0, -0.125),
        "b": (2, 0.75, 0.25),
    }
    assert list(result.by_group) == ["a", "b"]


def test_of_a_single_cluster_nothing_is_known() -> None:
    scores = np.array([[0.75, 0.25], [0.5, 0.25]], np.float32)
    figures = summarise(_pairs("  ", "xx"), scores, seed=0).overall
    assert (figures.accuracy_low, figures.accuracy, figures.accuracy_high) == (0.0, 1.0, 1.0)
    assert (figures.margin_low, figures.margin_high) == (-2.0, 2.0)


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=12), st.integers(0, 3))
def test_swapping_the_texts_gives_the_rest_to_one(cosines: list[tuple[int, int]], seed: int) -> None:
    scores = np.array(cosines, np.float32) / 4
    pairs = _pairs("ab" * 6, "xyyz" * 3)[: len(scores)]
    one, other = summarise(pairs, scores, seed), summarise(pairs, scores[:, ::-1], seed)
    for name in ("", *one.by_group):
        a, b = (result.by_group[name] if name else result.overall for result in (one, other))
        assert a.accuracy + b.accuracy == pytest.approx(1)
        assert a.accuracy_low + b.accuracy_high == pytest.approx(1)
        assert a.margin_high + b.margin_low == pytest.approx(0)
        assert a.accuracy_low <= a.accuracy + 1e-12
        assert a.accuracy <= a.accuracy_high + 1e-12


def test_the_interval_is_that_of_a_share() -> None:
    draw = np.random.default_rng(1)
    right = draw.random(1000) < 0.7
    scores = np.stack([right, ~right], axis=1).astype(np.float32)
    figures = summarise(_pairs(" " * 1000), scores, seed=2).overall
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 1000)
    assert figures.accuracy_high - figures.accuracy == pytest.approx(half, rel=0.1)
    assert figures.accuracy - figures.accuracy_low == pytest.approx(half, rel=0.1)


def test_copies_of_a_cluster_tell_nothing_new() -> None:
    draw = np.random.default_rng(3)
    scores = draw.random((50, 2)).astype(np.float32)
    single = [ContrastPair(query="q", positive="p", counterfactual="c", cluster=str(n)) for n in range(50)]
    once = summarise(single, scores, seed=4).overall
    copied = summarise(single * 9, np.tile(scores, (9, 1)), seed=4).overall
    assert copied.model_dump(exclude={"pairs"}) == pytest.approx(once.model_dump(exclude={"pairs"}))
    # Were they taken for pairs of their own, the interval would be three times as narrow.
    alone = [pair.model_copy(update={"cluster": str(n)}) for n, pair in enumerate(single * 9)]
    narrow = summarise(alone, np.tile(scores, (9, 1)), seed=4).overall
    widths = [f.margin_high - f.margin_low for f in (once, narrow)]
    assert widths[0] / widths[1] == pytest.approx(3, rel=0.1)


def test_pairs_of_a_query_are_a_cluster_where_none_is_named() -> None:
    pairs = [ContrastPair(query=q, positive="p", counterfactual="c", cluster=c) for q, c in ("ax", "bx", "b ", "b ")]
    pairs = [pair.model_copy(update={"cluster": pair.cluster.strip()}) for pair in pairs]
    assert contrast.cluster_numbers(pairs).tolist() == [0, 0, 1, 1]


# Scoring


class Counting:
    """An encoder that writes down what it is given."""

    def __init__(self) -> None:
        self.encoder = load_encoder(resolve("embedded:minilm-l6"), 1)
        self.device, self.seen = self.encoder.device, {"query": [], "document": []}  # type: ignore[var-annotated]

    def encode_query(self, texts: list[str], **options: object) -> np.ndarray:
        self.seen["query"] += texts
        return np.asarray(self.encoder.encode_query(texts, **options))

    def encode_document(self, texts: list[str], **options: object) -> np.ndarray:
        self.seen["document"] += texts
        return np.asarray(self.encoder.encode_document(texts, **options))


def test_every_text_is_encoded_once_and_its_cosine_is_that_of_its_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "_SLICE", 2)
    encoder = Counting()
    texts = ["Rome is in Italy.", "Paris is in France.", "Bread is baked from flour."]
    pairs = [
        ContrastPair(query=f"What of {q}?", positive=texts[p], counterfactual=texts[c])
        for q, p, c in [("Rome", 0, 1), ("bread", 2, 0), ("Rome", 0, 2), ("Paris", 1, 1)]
    ]
    scores = score_pairs(encoder, pairs)  # type: ignore[arg-type]
    assert encoder.seen == {"query": ["What of Rome?", "What of bread?", "What of Paris?"], "document": texts}
    assert scores.dtype == np.float32
    expected = [
        encoder.encoder.encode_query([p.query], normalize_embeddings=True)
        @ encoder.encoder.encode_document([p.positive, p.counterfactual], normalize_embeddings=True).T
        for p in pairs
    ]
    np.testing.assert_allclose(scores, np.concatenate(expected), atol=1e-6)
    figures = summarise(pairs, scores, 0).overall
    assert (figures.ties, figures.accuracy) == (1, 3.5 / 4)


def test_an_edit_that_the_encoder_does_not_see_is_a_tie() -> None:
    # In batches of other lengths: their rounding must decide nothing.
    encoder = load_encoder(resolve("embedded:minilm-l6"), 1)
    long = "word " * 300
    pairs = [
        ContrastPair(query=q, positive=long + "in 1920", counterfactual=long + "in 1930") for q in ("word", "year 1930")
    ]
    scores = score_pairs(encoder, pairs, batch_size=1)
    assert summarise(pairs, scores, 0).overall.ties == 2


def test_an_encoder_without_finite_vectors_is_refused(tmp_path: Path) -> None:
    encoder = load_encoder(resolve(str(tiny_encoder(tmp_path))), 1)
    next(encoder.parameters()).data.fill_(np.nan)
    with pytest.raises(UserError, match="gave a query a vector with NaN"):
        score_pairs(encoder, PAIRS)


def test_real_edits_are_told_apart_as_known(shared_data: Path) -> None:
    pairs = read_pairs(str(shared_data / "vitaminc.zip"))
    assert len(pairs) == 17_110
    assert {pair.group for pair in pairs} == {"REFUTES", "NOT ENOUGH INFO"}
    assert len(set(contrast.cluster_numbers(pairs).tolist())) == 2816  # pages
    some = pairs[:: len(pairs) // 300]
    result = summarise(some, score_pairs(load_encoder(resolve("embedded:minilm-l6"), 1), some), 0)
    figures = result.overall
    assert figures.accuracy_low < 0.753 < figures.accuracy_high  # that of all pairs
    assert figures.accuracy_high - figures.accuracy_low < 0.12
    assert figures.margin_low > 0
    assert all(low < high for low, high in pairwise([figures.margin_low, figures.margin, figures.margin_high]))


# Two encoders


def test_the_change_is_that_of_the_figures() -> None:
    base = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.375], [0.5, 0.375]], np.float32)
    trained = np.array([[0.75, 0.0], [0.5, 0.25], [0.25, 0.5], [0.5, 0.0]], np.float32)
    pairs = _pairs("bba ")
    found = compare(pairs, base, trained, seed=0)
    assert list(found) == ["", "a", "b"]
    before, after = summarise(pairs, base, 0), summarise(pairs, trained, 0)
    for name, changes in found.items():
        a, b = (result.by_group[name] if name else result.overall for result in (before, after))
        assert changes.accuracy.difference == pytest.approx(b.accuracy - a.accuracy)
        assert changes.margin.difference == pytest.approx(b.margin - a.margin)
    assert found["a"].accuracy.p == 1.0  # a single pair
    assert (found["a"].margin.low, found["a"].margin.high) == (-4.0, 4.0)


def test_the_same_encoder_differs_by_nothing() -> None:
    scores = np.random.default_rng(0).random((40, 2)).astype(np.float32)
    changes = compare(_pairs(" " * 40), scores, scores, seed=0)[""]
    for change in (changes.accuracy, changes.margin):
        assert (change.difference, change.low, change.high, change.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_gain_in_one_cluster_alone_is_no_proof() -> None:
    draw = np.random.default_rng(5)
    base = draw.random((60, 2)).astype(np.float32)
    gain = np.zeros((60, 2), np.float32)
    gain[:30, 0] = 0.5
    single = _pairs(" " * 60)
    alike = [p.model_copy(update={"cluster": "one" if n < 30 else p.query}) for n, p in enumerate(single)]
    sure, unsure = (compare(pairs, base, base + gain, seed=0)[""].margin for pairs in (single, alike))
    assert sure.difference == pytest.approx(unsure.difference) == pytest.approx(0.25)
    assert sure.p < 0.001
    assert sure.low > 0.15
    assert unsure.p == 1.0  # of a single cluster's difference either sign is as likely
    assert unsure.low == 0.0
