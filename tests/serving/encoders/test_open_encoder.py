"""Encoders give what sentence-transformers gives, whatever runs them, and come back fast."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.models import ResolvedModel
from causalneg.serving.encoders import EncoderFailed, QueryEncoder, open_encoder, padded_tokens, prepare_encoder
from causalneg.serving.encoders.encoder import Encoder, InputLayout, Tokens

ODD = [
    "", " ", "\t\n", "\0", "a\0b", "😀👩‍👩‍👧", "漢字かな", "한국어", "Ünïcödé naïve ŁÓDŹ", "e\u0301", "ﬁ ™ ½", "İ",
    "\u200b\ufeff", "[CLS] [SEP] [PAD]", "##ing", "UPPER lower", "x" * 500, "word " * 2000, "é" * 300, "\U0010ffff",
    "right\u202eleft", "مرحبا بالعالم", "…!?", "1,234.5e-6",
]  # fmt: skip


def loaded(model: ResolvedModel) -> SentenceTransformer:
    return SentenceTransformer(str(model.path), local_files_only=True, device="cpu")


def encode(encoder: QueryEncoder, texts: list[str], prompt: str = "", normalise: bool = True) -> np.ndarray:
    return encoder.encode([tokens.ids for tokens in encoder.tokenise(texts, prompt)], normalise)


@pytest.fixture(scope="session")
def openvino(minilm: ResolvedModel, cache: Path) -> QueryEncoder:
    return open_encoder(minilm, "openvino", 1)


@pytest.fixture(scope="session")
def own(minilm: ResolvedModel) -> SentenceTransformer:
    return loaded(minilm)


def test_tokens_are_those_of_sentence_transformers(own: SentenceTransformer, openvino: QueryEncoder) -> None:
    for prompt in ("", "query: "):
        features = own.preprocess(ODD, prompt=prompt)
        expected = [
            i[m.bool()].tolist() for i, m in zip(features["input_ids"], features["attention_mask"], strict=True)
        ]
        assert [tokens.ids for tokens in openvino.tokenise(ODD, prompt)] == expected
    assert openvino.max_length == own.max_seq_length


def test_vectors_are_those_of_sentence_transformers(own: SentenceTransformer, openvino: QueryEncoder) -> None:
    expected = own.encode(ODD, normalize_embeddings=True)
    vectors = encode(openvino, ODD)
    assert vectors.dtype == np.float32
    assert (vectors * expected).sum(1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_cut_text_keeps_its_special_tokens_and_the_wanted_end(openvino: QueryEncoder) -> None:
    text = " ".join(str(number) for number in range(400))
    whole = openvino.tokenise(["0 1 2", text])
    assert not whole[0].truncated
    assert whole[1].truncated
    left, right = (openvino.tokenise([text], cut=side)[0].ids for side in ("left", "right"))
    assert len(left) == len(right) == openvino.max_length
    assert left[0] == right[0] == whole[0].ids[0]
    assert left[-1] == right[-1] == whole[0].ids[-1]
    assert right[:4] == whole[0].ids[:4]
    assert left[-2] == openvino.tokenise(["399"])[0].ids[-2]
    room = openvino.max_length - 2
    exact, above = openvino.tokenise(["a " * room, "a " * (room + 1)])
    assert not exact.truncated
    assert above.truncated
    assert exact.ids == above.ids


def test_threads_tokenise_side_by_side(openvino: QueryEncoder) -> None:
    expected = {side: openvino.tokenise(ODD, cut=side) for side in ("left", "right")}
    ready = threading.Barrier(8)

    def tokenise(number: int) -> bool:
        ready.wait()
        side = "left" if number % 2 else "right"
        return all(openvino.tokenise(ODD, cut=side) == expected[side] for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(tokenise, range(8)))


def test_what_stands_beside_a_text_does_not_matter(openvino: QueryEncoder) -> None:
    together = encode(openvino, ODD)
    apart = np.concatenate([encode(openvino, [text]) for text in ODD])
    assert (together * apart).sum(1).min() > 0.9995
    assert encode(openvino, []).shape == (0, openvino.dimension)


@pytest.mark.parametrize("backend", ["torch-fp32", "openvino", "onnx"])
def test_every_module_prompt_and_dimension_is_kept(tiny: ResolvedModel, backend: str, report: Reporter) -> None:
    encoder = open_encoder(tiny, backend, 1, report)
    assert (encoder.name, encoder.dimension, encoder.max_length) == (backend, 16, 48)
    assert encoder.prompts == {"query": "Query: ", "document": "", "title": "Title: "}
    own = loaded(tiny)
    for normalise in (True, False):
        for prompt in ("", "Query: "):
            expected = own.encode(ODD, prompt=prompt, normalize_embeddings=normalise)
            np.testing.assert_allclose(encode(encoder, ODD, prompt, normalise), expected, atol=2e-2)
    assert backend in report.console.file.getvalue()


def test_auto_takes_the_fastest_that_agrees(tiny: ResolvedModel, cache: Path, report: Reporter) -> None:
    folder, prepared = prepare_encoder(tiny, "auto", 1, report)
    tried = {(f.backend, f.dtype) for f in prepared.figures}
    assert {("torch-fp32", "float32"), ("openvino", "float32"), ("onnx", "float32")} <= tried
    assert prepared.chosen == min(prepared.figures, key=lambda f: f.latency)
    assert all(f.query_ms > 0 and f.batch_ms > 0 and f.cosine > 0.999 for f in prepared.figures)
    kept = {path.name for path in folder.iterdir() if path.is_dir()}
    assert kept == {prepared.chosen.backend} & {"openvino", "onnx"}
    again, same = prepare_encoder(tiny, "auto", 1, report)
    assert (again, same) == (folder, prepared)
    said = report.console.file.getvalue()
    assert said.count("preparing") == 1
    assert f"encoder: {prepared.chosen.backend} (" in said
    assert prepare_encoder(tiny, "torch-fp32", 1)[0] != folder


def test_a_decoder_padded_and_cut_on_the_left(causal: ResolvedModel) -> None:
    encoder = open_encoder(causal, "openvino", 1)
    expected = loaded(causal).encode(ODD, normalize_embeddings=True)
    assert (encode(encoder, ODD) * expected).sum(1).min() > 0.999
    long = " ".join(str(number) for number in range(100))
    assert encoder.tokenise([long]) == encoder.tokenise([long], cut="left") != encoder.tokenise([long], cut="right")


def test_a_model_without_a_transformer(static: ResolvedModel, report: Reporter) -> None:
    encoder = open_encoder(static, "auto", 1, report)
    assert encoder.name.startswith("torch")
    texts = [text for text in ODD if text.strip("\0 \t\n\u200b\ufeff")]
    expected = loaded(static).encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encode(encoder, texts), expected, atol=2e-2)
    assert "only torch can run it" in report.console.file.getvalue()
    with pytest.raises(UserError, match=r"serve.backend onnx: .*only torch.*; take auto"):
        open_encoder(static, "onnx", 1)


def test_a_model_of_more_than_token_ids_is_refused(instructed: ResolvedModel) -> None:
    with pytest.raises(UserError, match="more than token ids"):
        open_encoder(instructed, "auto", 1)


def test_a_package_that_is_not_there(tiny: ResolvedModel, absent: Callable[..., None], report: Reporter) -> None:
    absent("onnxruntime", "openvino")
    with pytest.raises(UserError, match=r"onnxruntime must be installed; run `pip install 'causalneg\[serve\]'`"):
        open_encoder(tiny, "onnx", 1)
    _, prepared = prepare_encoder(tiny, "auto", 2, report)
    assert {f.backend for f in prepared.figures} <= {"torch-fp32", "torch-bf16"}
    assert "onnx was not tried: onnxruntime must be installed" in report.console.file.getvalue()


def test_a_backend_too_far_from_the_model_is_refused(tiny: ResolvedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from causalneg.serving.encoders import runtimes
    from causalneg.serving.encoders.pytorch import SentenceModule, forward_of

    modules: list[SentenceModule] = []
    noise = np.random.default_rng(0)

    def noisy(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        vectors = forward_of(modules[0], "float32")(ids, mask)
        return vectors + 0.05 * noise.standard_normal(vectors.shape).astype(np.float32)

    def is_nan(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.full((len(ids), 16), np.nan)

    def fail(module: SentenceModule, folder: Path) -> None:
        raise ValueError("no such operator\nand a long trace")

    runtime = runtimes.RUNTIMES["onnx"]._replace(convert=lambda module, folder: modules.append(module))
    for broken, reason in (
        (runtime._replace(open=lambda *_: noisy), r"own vectors is 0\.\d+, below 0\.999"),
        (runtime._replace(open=lambda *_: is_nan), "NaN"),
        (runtime._replace(convert=fail), "onnx cannot run the model: no such operator"),
    ):
        monkeypatch.setitem(runtimes.RUNTIMES, "onnx", broken)
        with pytest.raises(UserError, match=rf"serve.backend onnx: .*{reason}.*; take auto"):
            open_encoder(tiny, "onnx", 3)


def test_a_damaged_folder_is_prepared_again(tiny: ResolvedModel, report: Reporter) -> None:
    folder, _ = prepare_encoder(tiny, "openvino", 1)
    before = encode(open_encoder(tiny, "openvino", 1), ["text"])
    weights = folder / "openvino" / "model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    after = encode(open_encoder(tiny, "openvino", 1, report), ["text"])
    assert (before * after).sum() > 0.999
    assert report.console.file.getvalue().count("preparing") == 1


def test_a_damaged_description_is_written_again(static: ResolvedModel) -> None:
    folder, prepared = prepare_encoder(static, "torch-fp32", 1)
    (folder / "encoder.json").write_text("{")
    assert prepare_encoder(static, "torch-fp32", 1)[1].layout == prepared.layout


def test_who_asks_at_the_same_time_waits_for_the_one_that_prepares(static: ResolvedModel, report: Reporter) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare_encoder(static, "torch-fp32", 2, report), range(4)))
    assert all(one == found[0] for one in found)
    assert report.console.file.getvalue().count("preparing") == 1


def test_a_cache_that_cannot_be_written(tiny: ResolvedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CAUSALNEG_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set CAUSALNEG_CACHE"):
        open_encoder(tiny, "openvino", 1)


def test_a_prepared_encoder_opens_without_torch(minilm: ResolvedModel, openvino: QueryEncoder, cache: Path) -> None:
    code = """
import json, sys
from pathlib import Path
from causalneg.models import ResolvedModel
from causalneg.serving.encoders import open_encoder
name, path, fingerprint = sys.argv[1:]
encoder = open_encoder(ResolvedModel(name, Path(path), fingerprint), "openvino", 1)
vector = encoder.encode([encoder.tokenise(["capital of france"])[0].ids])[0]
heavy = [m for m in ("torch", "transformers", "sentence_transformers", "onnxruntime") if m in sys.modules]
print(json.dumps({"heavy": heavy, "vector": vector.tolist()}))
"""
    arguments = [minilm.name, str(minilm.path), minilm.fingerprint]
    environment = {**os.environ, "CAUSALNEG_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["heavy"] == []
    np.testing.assert_allclose(said["vector"], encode(openvino, ["capital of france"])[0], atol=1e-6)


LAYOUT = InputLayout(
    dimension=4, max_length=64, vocabulary=1000, prompts={"query": "", "document": ""}, pad_id=0,
    cut="right", split_special_tokens=False, tokenizer=False,
)  # fmt: skip


def no_tokens(texts: object, prompt: str, cut: str) -> list[Tokens]:
    raise AssertionError("nothing is tokenised here")


@pytest.mark.parametrize(("value", "match"), [(np.nan, "NaN"), (np.inf, "infinity"), (0, "zeros")])
def test_a_vector_that_finds_nothing_is_an_error(value: float, match: str) -> None:
    encoder = Encoder("torch-fp32", "float32", LAYOUT, no_tokens, lambda ids, mask: np.full((len(ids), 4), value))
    with pytest.raises(EncoderFailed, match=match):
        encoder.encode([[1, 2]])


@given(st.lists(st.integers(0, 64), max_size=80))
def test_rows_come_back_in_order(lengths: list[int]) -> None:
    run = []

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        run.append(ids.size)
        assert ((ids > 0) <= (mask > 0)).all()
        assert (np.diff(mask, axis=1) <= 0).all()
        assert mask.any(axis=1).all()
        return np.stack([ids.sum(1), mask.sum(1), ids.max(1), np.ones(len(ids))], axis=1)

    ids = [[row + 1] * length for row, length in enumerate(lengths)]
    found = Encoder("torch-fp32", "float32", LAYOUT, no_tokens, forward).encode(ids, normalise=False)
    expected = [[(row + 1) * n, max(n, 1), (row + 1) * (n > 0), 1] for row, n in enumerate(lengths)]
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32).reshape(len(ids), 4))
    assert sum(run) == padded_tokens(lengths)
    assert sum(run) <= 2 * sum(lengths) + 17 * len(lengths)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(0, 40))
def test_more_texts_cost_more(lengths: list[int], count: int) -> None:
    assert padded_tokens(lengths[:count]) <= padded_tokens(lengths)
    assert padded_tokens(lengths) >= sum(padded_tokens([length]) for length in lengths)
