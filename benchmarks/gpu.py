"""The loss, the training step and encoding on a GPU, against sentence-transformers and a loop over rows.

    python -m benchmarks.gpu

Nothing is loaded but a tokenizer and a configuration: the weights of both models are random, which changes no time.
`MiniLM` is all-MiniLM-L6-v2, mean pooling; `decoder` has the sizes of Qwen3-0.6B, the last token's vector and padding
on the left. Texts are random words of the embedded sample, passages of 20 to 200 words. It needs a GPU to mean
anything; without one it runs on the processor, where its memory is not measured.

- `loss`: what `benchmarks.loss` measures.
- `step`: gradients, clipping and AdamW for rows of a query, a positive and 18 negatives, all passages of a batch
  competing, 192 tokens at most, bf16 products, fp32 weights, no dropout. All sides train one model with one optimizer;
  they differ in how they come to the gradients. Texts are tokenised beforehand, for the peers as well. The peers'
  forward pass is wrapped as their trainer wraps it. Sides take turns; the first step of each turn does not count.
- `little memory`: ours with 4 GiB for MiniLM's activations and 12 for the decoder's, at one, four and sixteen times
  the batch.
- `equivalence`: gradients in fp32 (no TF32) with all activations held against those with none held and small chunks,
  and against the peer's; the largest absolute difference as a share of the largest gradient.
- `encoding`: passages per second, from texts to vectors in memory.

Where a peer runs out of memory, its row says so and holds the GPU's memory. Each part stands alone: an error is
printed, the others go on, and the exit code is 1.
"""

import argparse
import copy
import gc
import io
import itertools
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from benchmarks import loss as loss_benchmark
from benchmarks.common import RESULTS, Row, publish
from causalneg.config import TrainSettings
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.models import ResolvedModel, resolve
from causalneg.training.data.store import ARRAYS, Data, Kind, write_facts
from causalneg.training.encoder.encoder import Encoder
from causalneg.training.objective.loss import LossSums
from causalneg.training.optimizer import FlatGradients, adamw
from causalneg.training.step import Step
from causalneg.training.workers import Alone

Precision = Literal["fp32", "bf16"]
Side = Callable[[np.ndarray], Callable[[], Tensor]]
"""Takes the numbers of rows, does what does not count, returns what adds their gradients and returns their loss."""

_MINED, _GENERATED = 15, 3
_PASSAGES = 1 + _MINED + _GENERATED  # of a row
_GRADIENT_GOAL = 1e-4
_PLENTY_GIB, _NOTHING_GIB = 1000.0, 1e-9  # for activations
# Where memory is short, GiB for activations and padded tokens of a pass; a token of the decoder takes 2.5 MB.
_LITTLE_GIB = {"MiniLM": 4.0, "decoder": 12.0}
_LITTLE_CHUNK = {"MiniLM": None, "decoder": 4096}
_LARGE_CHUNK, _SMALL_CHUNK = 8192, 1024
_PEER_TOKENS = 16_384
_WORDS = Path(__file__).parent.parent / "causalneg" / "sources" / "sample" / "corpus.jsonl"
_QWEN3: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        loss_steps: of each side of the loss.
        batch: rows of a step, by model.
        small_batch: rows that fit with all activations, by model.
        scales: how many batches are put into one, for memory.
        scaled_steps: that count, of each scale.
        turns: of each side of a step.
        steps: that count, of each turn.
        compared: rows whose gradients are compared, by model.
        encoded: passages, by model.
        runs: of each side of encoding.
        at_once: passages encoded at once.
        minilm_layers: of MiniLM.
        decoder: configuration of the decoder.
    """

    loss_steps: int
    batch: dict[str, int]
    small_batch: dict[str, int]
    scales: tuple[int, ...]
    scaled_steps: int
    turns: int
    steps: int
    compared: dict[str, int]
    encoded: dict[str, int]
    runs: int
    at_once: tuple[int, ...]
    minilm_layers: int
    decoder: dict[str, Any]


_FULL = Sizes(
    loss_steps=100,
    batch={"MiniLM": 64, "decoder": 16},
    small_batch={"MiniLM": 64, "decoder": 4},
    scales=(1, 4, 16),
    scaled_steps=2,
    turns=2,
    steps=3,
    compared={"MiniLM": 16, "decoder": 2},
    encoded={"MiniLM": 6144, "decoder": 512},
    runs=3,
    at_once=(32, 256),
    minilm_layers=6,
    decoder=_QWEN3,
)
_QUICK = Sizes(
    loss_steps=10,
    batch={"MiniLM": 1, "decoder": 1},
    small_batch={"MiniLM": 1, "decoder": 2},
    scales=(1, 2),
    scaled_steps=1,
    turns=1,
    steps=1,
    compared={"MiniLM": 1, "decoder": 1},
    encoded={"MiniLM": 4, "decoder": 4},
    runs=1,
    at_once=(32,),
    minilm_layers=1,
    decoder={
        "vocab_size": 30_522,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
    },
)


def _clean(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Texts:
    """Draws texts of the sample's words."""

    def __init__(self) -> None:
        self._words = np.array(sorted(set(_WORDS.read_text(encoding="utf-8").replace('"', " ").split())))
        self._random = np.random.default_rng(0)

    def _draw(self, lengths: np.ndarray) -> list[str]:
        words = self._random.choice(self._words, int(lengths.sum()))
        return [" ".join(part) for part in np.split(words, lengths.cumsum()[:-1])]

    def passages(self, number: int) -> list[str]:
        """Draw passages; half of them are shorter than 80 words."""
        drawn = np.exp(self._random.normal(np.log(80), 0.5, number))
        return self._draw(np.clip(drawn, 20, 200).astype(np.int64))

    def queries(self, number: int) -> list[str]:
        """Draw queries of 5 to 15 words."""
        return self._draw(self._random.integers(5, 16, number))


def _save(plain: Path, folder: Path, pooling: Literal["mean", "lasttoken"], dimension: int) -> None:
    """Write a plain model in sentence-transformers layout."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(plain), max_seq_length=256)
    modules = [transformer, Pooling(dimension, pooling), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)


def make_minilm(source: Path, folder: Path, layers: int, device: torch.device) -> Path:
    """Write a model like the one in `source`, of which it takes all but the weights and the number of layers."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    config = BertConfig.from_pretrained(source, num_hidden_layers=layers, local_files_only=True)
    torch.manual_seed(0)
    with device:
        BertModel(config).save_pretrained(folder / "plain")
    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(folder / "plain")
    _save(folder / "plain", folder / "model", "mean", config.hidden_size)
    return folder / "model"


def make_decoder(source: Path, folder: Path, sizes: dict[str, Any], device: torch.device) -> Path:
    """Write a decoder in bf16 that takes the tokenizer of `source`."""
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    config = Qwen3Config(**sizes, use_cache=False, pad_token_id=0, bos_token_id=None, eos_token_id=102)
    torch.manual_seed(0)
    with device:
        Qwen3Model(config).bfloat16().save_pretrained(folder / "plain")
    PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"),
        pad_token="[PAD]",  # noqa: S106 - no password
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder / "plain")
    _save(folder / "plain", folder / "model", "lasttoken", config.hidden_size)
    return folder / "model"


@dataclass(frozen=True)
class Rows:
    """Rows to train on: `[rows]` queries, and `[passages of a row][rows]` passages, the positives first."""

    queries: list[str]
    passages: list[list[str]]

    def columns(self, rows: Sequence[int]) -> list[list[str]]:
        """Return the texts of some rows as sentence-transformers takes them."""
        return [[column[r] for r in rows] for column in (self.queries, *self.passages)]


def draw_rows(number: int) -> Rows:
    """Draw rows that share no passage."""
    texts = Texts()
    return Rows(texts.queries(number), [texts.passages(number) for _ in range(_PASSAGES)])


def write_store(rows: Rows, encoder: Encoder, folder: Path) -> Data:
    """Write rows as `causalneg train` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(rows.queries)
    positives, negatives = np.arange(number), np.arange(number, number * _PASSAGES)
    arrays: dict[str, Any] = {name: [] for name in ARRAYS}
    texts: tuple[tuple[Kind, list[str]], ...] = (
        ("query", rows.queries),
        ("passage", list(itertools.chain(*rows.passages))),
    )
    for kind, own in texts:
        ids = encoder.tokenize(own, kind)
        arrays[f"{kind}.tokens"] = np.concatenate(ids)
        arrays[f"{kind}.start"] = np.cumsum([0, *map(len, ids)])
        arrays[f"{kind}.key"] = np.arange(len(ids))
    arrays["row.query"] = arrays["row.positive"] = arrays["known.passage"] = arrays["rows.train"] = positives
    arrays["row.teacher"] = np.full(number, np.nan)
    arrays["row.start"] = np.arange(number + 1) * (_PASSAGES - 1)
    arrays["negative.passage"] = negatives.reshape(_PASSAGES - 1, number).T.ravel()
    arrays["negative.generated"] = np.tile(np.arange(1, _PASSAGES) > _MINED, number)
    arrays["negative.rules"] = np.zeros(len(negatives))
    arrays["negative.teacher"] = np.full(len(negatives), np.nan)
    arrays["known.start"] = np.arange(number + 1)
    for name, values in arrays.items():
        np.asarray(values).astype(ARRAYS[name]).tofile(folder / name)
    write_facts(folder, {"rows": number})
    return Data(folder)


def _settings(**fields: object) -> TrainSettings:
    loss = {"candidates": "in_batch", "share_generated": True, "entropy_weight": 0.0}
    return TrainSettings.model_validate({"loss": loss, **fields})


class Training:
    """A model at training; what is compared are the ways to its gradients.

    Args:
        path: of the model.
        rows: to train on.
        folder: for the store.
        precision: of the matrix products.
        device: where to compute.
        chunk_tokens: padded tokens of our passes; by the device when unset.
    """

    def __init__(
        self,
        path: Path,
        rows: Rows,
        folder: Path,
        precision: Precision,
        device: torch.device,
        chunk_tokens: int | None = None,
    ) -> None:
        self.device, self.rows, self._precision = device, rows, precision
        self._encoder = Encoder(path, _settings().encoder, precision, device, chunk_tokens)
        self._data = write_store(rows, self._encoder, folder)
        parameters = self._encoder.parameters()
        self._flat = FlatGradients(parameters, 0)
        self._optimizer = adamw(parameters, 5e-5, 0.01)

    def ours(self, held_gib: float | None = None) -> Side:
        """Return our side, with so much memory for activations, GiB."""
        step = Step(self._encoder, self._data, _settings(held_gib=held_gib), 0, Alone())

        def add(rows: np.ndarray) -> Tensor:
            return LossSums(*step(0, rows, 0.0)).info_nce / len(rows)

        return lambda rows: partial(add, rows)

    def peer(self, name: str, **options: object) -> Side:
        """Return the side of a loss of sentence-transformers, with its options."""
        from accelerate.utils import convert_outputs_to_fp32
        from sentence_transformers.sentence_transformer import losses

        model = copy.copy(self._encoder.model.eval())
        model.max_seq_length = self._encoder.longest("passage")
        if self._precision == "bf16":
            cast = torch.autocast(self.device.type, torch.bfloat16)
            vars(model)["forward"] = convert_outputs_to_fp32(cast(model.forward))
        loss = getattr(losses, name)(model, **options)

        def add(columns: list[dict[str, Any]]) -> Tensor:
            moved = [
                {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in column.items()} for column in columns
            ]
            value = loss(moved, torch.empty(0))
            value.backward()
            return value.detach()

        return lambda rows: partial(add, [dict(model.preprocess(texts)) for texts in self.rows.columns(rows.tolist())])

    def update(self, add: Callable[[], Tensor]) -> None:
        """Do a step."""
        self._flat.flat.zero_()
        add()
        self._flat.clip(1.0)
        self._optimizer.step()

    def gradients(self, side: Side, rows: np.ndarray) -> tuple[float, Tensor]:
        """Return the loss and all gradients as one tensor."""
        self._flat.flat.zero_()
        value = float(side(rows)())
        return value, self._flat.gradients.clone()


@dataclass
class Taken:
    """Seconds and peak memory, GiB, of a side's steps; of one that ran out of memory there are none."""

    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def pace(self, batch: int) -> float:
        """Return rows per second."""
        return batch / statistics.median(self.seconds)


def _take_turn(training: Training, side: Side, batch: int, steps: int, taken: Taken) -> None:
    """Do a turn's steps, the first of which does not count."""
    device, total = training.device, len(training.rows.queries)
    for number in range(1 + steps):
        add = side(np.arange(number * batch, (number + 1) * batch) % total)
        _wait(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        training.update(add)
        _wait(device)
        if number:
            taken.seconds.append(time.perf_counter() - started)
            if device.type == "cuda":
                taken.memory.append(torch.cuda.max_memory_allocated(device) / 1024**3)


def take_turns(training: Training, sides: Mapping[str, Side], batch: int, turns: int, steps: int) -> dict[str, Taken]:
    """Let sides take turns; one that runs out of memory takes no more."""
    found = {name: Taken() for name in sides}
    left = dict(sides)
    for _ in range(turns):
        for name, side in list(left.items()):
            try:
                _take_turn(training, side, batch, steps, found[name])
            except torch.OutOfMemoryError:
                found[name] = Taken()
                del left[name]
            _clean(training.device)
    return found


class Bench:
    """What the parts share: models, texts, device and sizes."""

    def __init__(self, source: Path, folder: Path, device: torch.device, sizes: Sizes) -> None:
        self.device, self.sizes = device, sizes
        self._source, self._folder, self._made = source, folder, dict[str, Path]()
        self._precision: Precision = "bf16" if device.type == "cuda" else "fp32"

    def model(self, name: str) -> Path:
        """Write a model once; return its folder."""
        if name not in self._made:
            folder = self._folder / name
            if name == "MiniLM":
                self._made[name] = make_minilm(self._source, folder, self.sizes.minilm_layers, self.device)
            else:
                self._made[name] = make_decoder(self._source, folder, self.sizes.decoder, self.device)
            _clean(self.device)
        return self._made[name]

    def training(self, name: str, number: int, precision: Precision, chunk_tokens: int | None = None) -> Training:
        """Load a model to train it on so many rows."""
        with tempfile.TemporaryDirectory(dir=self._folder) as store:  # what is mapped stays until it is let go
            return Training(self.model(name), draw_rows(number), Path(store), precision, self.device, chunk_tokens)

    def loss(self) -> Iterator[Row]:
        """Measure the loss."""
        yield from loss_benchmark.measure(self.device, self.sizes.loss_steps)

    def step(self, name: str) -> Iterator[Row]:
        """Measure a model's steps against the peers, of one size and of a size that fits with all activations."""
        batch, small = self.sizes.batch[name], self.sizes.small_batch[name]
        training = self.training(name, 4 * max(batch, small), self._precision)
        plain, cached = "MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"
        sides = {
            "ours": training.ours(),
            plain: training.peer(plain),
            f"{cached}, 32 texts at once": training.peer(cached),
            f"{cached}, {_PEER_TOKENS} tokens at once": training.peer(cached, mini_batch_num_tokens=_PEER_TOKENS),
        }
        yield from self._against_peers(name, training, sides, batch)
        if small != batch:
            yield from self._against_peers(name, training, {n: sides[n] for n in ("ours", plain)}, small)

    def _against_peers(self, name: str, training: Training, sides: Mapping[str, Side], batch: int) -> Iterator[Row]:
        found = take_turns(training, sides, batch, self.sizes.turns, self.sizes.steps)
        ours = found.pop("ours")
        if not ours.seconds:
            raise MemoryError(f"{name}, {batch} rows: ours ran out of memory")
        what = f"{name}, {batch} rows"
        for peer, theirs in found.items():
            if theirs.seconds:
                pace, their_pace = ours.pace(batch), theirs.pace(batch)
                yield Row(f"{what}: step", "rows/s", pace, f"{peer}, {self._precision}", their_pace, pace / their_pace)
            if ours.memory:
                most = max(ours.memory)
                peer_name = f"{peer}, {self._precision}" + ("" if theirs.memory else ": OUT OF MEMORY, had")
                bound = torch.cuda.get_device_properties(self.device).total_memory / 1024**3
                theirs_most = max(theirs.memory, default=bound)
                yield Row(f"{what}: peak memory", "GiB", most, peer_name, theirs_most, theirs_most / most)

    def little_memory(self, name: str) -> Iterator[Row]:
        """Measure how pace and memory change with the batch, with little memory for activations."""
        batch, scales = self.sizes.batch[name], self.sizes.scales
        training = self.training(name, batch * max(scales), self._precision, _LITTLE_CHUNK[name])
        side = training.ours(_LITTLE_GIB[name])
        first: Taken | None = None
        for scale in scales:
            (taken,) = take_turns(training, {"ours": side}, batch * scale, 1, self.sizes.scaled_steps).values()
            if not taken.seconds:
                raise MemoryError(f"{name}, {batch * scale} rows: ours ran out of memory")
            first = first or taken
            what, peer = f"{name}, little memory, {batch * scale} rows", f"ours, {batch} rows"
            pace, before = taken.pace(batch * scale), first.pace(batch)
            yield Row(f"{what}: step", "rows/s", pace, peer, before, pace / before)
            if taken.memory and first.memory:
                most, least = max(taken.memory), max(first.memory)
                yield Row(f"{what}: peak memory", "GiB", most, peer, least, least / most)

    def equivalence(self, name: str) -> Iterator[Row]:
        """Compare gradients in fp32."""
        rows = np.arange(self.sizes.compared[name])
        training = self.training(name, len(rows), "fp32", _LARGE_CHUNK)
        value, whole = training.gradients(training.ours(_PLENTY_GIB), rows)
        their_value, theirs = training.gradients(training.peer("MultipleNegativesRankingLoss"), rows)
        del training
        _clean(self.device)
        training = self.training(name, len(rows), "fp32", _SMALL_CHUNK)
        _, parts = training.gradients(training.ours(_NOTHING_GIB), rows)

        def row(what: str, difference: float) -> Row:
            metric, ratio = f"{name}, {len(rows)} rows, fp32: {what}", _GRADIENT_GOAL / max(difference, 1e-12)
            return Row(metric, "share of the largest", difference, "allowed", _GRADIENT_GOAL, ratio, _GRADIENT_GOAL)

        largest = float(whole.abs().max())
        yield row("gradients, all held against none", float((whole - parts).abs().max()) / largest)
        peer = "MultipleNegativesRankingLoss"
        yield row(f"gradients, ours against {peer}", float((whole - theirs).abs().max()) / largest)
        yield row(f"loss, ours against {peer}", abs(value - their_value) / abs(their_value))

    def encoding(self, name: str) -> Iterator[Row]:
        """Measure encoding with the default batch size and a larger one."""
        texts = Texts().passages(self.sizes.encoded[name])
        encoder = load_encoder(ResolvedModel(name, self.model(name), ""), torch.get_num_threads())
        load_encoder.cache_clear()
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        peers = {n: copy.deepcopy(encoder).to(dtype) for n, dtype in dtypes.items()}
        for batch in self.sizes.at_once:
            sides: dict[str, Callable[[Sequence[str]], np.ndarray]] = {
                "ours": partial(encode, encoder, kind="passage", batch_size=batch)
            }
            for n, peer in peers.items():
                sides[n] = partial(peer.encode, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)
            seconds: dict[str, list[float]] = {n: [] for n in sides}
            vectors = {n: side(texts[:512]) for n, side in sides.items()}  # warm-up
            for _ in range(self.sizes.runs):
                for n, side in sides.items():
                    _wait(self.device)
                    started = time.perf_counter()
                    side(texts)
                    seconds[n].append(time.perf_counter() - started)
            pace = {n: len(texts) / statistics.median(taken) for n, taken in seconds.items()}
            for n in peers:
                peer_name = f"SentenceTransformer.encode, weights in {n}"
                metric = f"{name}, {batch} at once: encoding"
                yield Row(metric, "passages/s", pace["ours"], peer_name, pace[n], pace["ours"] / pace[n])
        cosine = float((vectors["ours"] * vectors["fp32"]).sum(1).min())
        yield Row(f"{name}: smallest cosine to fp32 vectors", "cosine", cosine, "fp32", 1.0, cosine)


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "loss": Bench.loss,
    "step-minilm": lambda bench: bench.step("MiniLM"),
    "little-minilm": lambda bench: bench.little_memory("MiniLM"),
    "equivalence-minilm": lambda bench: bench.equivalence("MiniLM"),
    "encoding-minilm": lambda bench: bench.encoding("MiniLM"),
    "step-decoder": lambda bench: bench.step("decoder"),
    "little-decoder": lambda bench: bench.little_memory("decoder"),
    "equivalence-decoder": lambda bench: bench.equivalence("decoder"),
    "encoding-decoder": lambda bench: bench.encoding("decoder"),
}


def run(bench: Bench, parts: Sequence[str], report: Reporter, results: Path) -> bool:
    """Measure parts and write the rows after each; return whether none failed."""
    rows: list[Row] = []
    whole = True
    for part in parts:
        started = time.perf_counter()
        try:
            for row in PARTS[part](bench):
                rows.append(row)
        except Exception:  # the other parts are still worth their time
            whole = False
            report.line(f"{part} failed:\n{traceback.format_exc()}")
        _clean(bench.device)
        report.line(f"{part}: {time.perf_counter() - started:.1f} s")
        publish("gpu", rows, Reporter(io.StringIO()), results)  # stays if the machine is taken away
    publish("gpu", rows, report, results)
    return whole


def main() -> int:
    """Measure all parts, or those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to measure")
    parser.add_argument("--minilm", type=Path, help="folder with MiniLM's configuration and tokenizer")
    parser.add_argument("--workspace", type=Path, help="folder to work in; a temporary one when unset")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run, not what it gives")
    arguments = parser.parse_args()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)  # on a busy machine threads wait for each other
    torch.set_float32_matmul_precision("highest")  # no TF32 where fp32 is said
    transformers_logging.disable_progress_bar()
    folder = arguments.workspace or Path(tempfile.mkdtemp(prefix="causalneg-gpu-"))
    folder.mkdir(parents=True, exist_ok=True)
    source = arguments.minilm or resolve("embedded:minilm-l6").path
    report = Reporter()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: on the processor"
    report.line(f"{name}, torch {torch.__version__}")
    bench = Bench(source, folder, device, _QUICK if arguments.quick else _FULL)
    return 0 if run(bench, arguments.only, report, arguments.results) else 1


if __name__ == "__main__":
    sys.exit(main())
