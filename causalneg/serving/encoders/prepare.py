"""Opens the encoder that is fastest on this machine; what that takes is done once and kept in the cache.

Opening one that is prepared for OpenVINO or ONNX Runtime imports neither torch nor transformers, so that a
replica is back soon after it was lost.
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from causalneg.errors import UserError
from causalneg.files import file_sha256, locked, whole_folder
from causalneg.models import ResolvedModel, cache_dir
from causalneg.serving.encoders.calibrate import (
    COSINE_GATE,
    TEXTS,
    Figures,
    agreement,
    measure,
    summary,
)
from causalneg.serving.encoders.encoder import DType, Encoder, EncoderFailed, InputLayout, QueryEncoder, Tokeniser
from causalneg.serving.encoders.runtimes import RUNTIMES, Runtime
from causalneg.serving.encoders.tokenise import TOKENIZER_FILE, FileTokeniser

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from causalneg.console import Reporter
    from causalneg.serving.encoders.pytorch import SentenceModule

Backend = Literal["auto", "torch-fp32", "torch-bf16", "onnx", "openvino"]

_FORMAT = 1  # of a prepared folder; another number for another content
_PREPARED_FILE = "encoder.json"
_TORCH_DTYPES: dict[str, DType] = {"torch-fp32": "float32", "torch-bf16": "bfloat16"}
_LARGEST_GIB = 1.9  # weights that fit into an ONNX file, and twice into memory
_PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "openvino", "onnxruntime", "onnx")


class Prepared(BaseModel):
    """What is known of an encoder that was prepared.

    Attributes:
        chosen: the backend, and what was measured of it.
        layout: how inputs are made.
        figures: of all backends that find what the model finds.
        notes: why others were not taken.
        files: SHA-256 by name.
    """

    model_config = ConfigDict(frozen=True)

    chosen: Figures
    layout: InputLayout
    figures: list[Figures]
    notes: list[str]
    files: dict[str, str]


def open_encoder(
    model: ResolvedModel, backend: Backend = "auto", threads: int = 1, report: "Reporter | None" = None
) -> QueryEncoder:
    """Open what encodes texts fastest among what finds the same as the model itself.

    It is prepared if it is not; `prepare_encoder` says what that means, and what is raised.
    """
    folder, prepared = prepare_encoder(model, backend, threads, report)
    return _open(folder, prepared, model, threads)


def prepare_encoder(
    model: ResolvedModel, backend: Backend = "auto", threads: int = 1, report: "Reporter | None" = None
) -> tuple[Path, Prepared]:
    """Find out what encodes texts fastest among what finds the same as the model itself, and have it ready.

    The first call for a model, a machine and the installed versions converts the model and measures; that takes
    half a minute for a small one. Processes that ask at the same time wait for the one that does it.

    Args:
        model: in sentence-transformers layout.
        backend: `auto`, or the one to take.
        threads: to compute with.
        report: is told what was chosen, and why.

    Returns:
        the folder in the cache, and what is known of it.

    Raises:
        UserError: the backend is not installed, not possible here, or too far from the model; or the model takes
            more than token ids.
    """
    if backend in RUNTIMES and (missing := RUNTIMES[backend].missing):
        raise UserError(
            f"serve.backend {backend}: {' and '.join(missing)} must be installed; "
            "run `pip install 'causalneg[serve]'`, or take auto."
        )
    folder = cache_dir() / "encoders" / _key(model, backend, threads)
    prepared = _read(folder) or _prepare_once(folder, model, backend, threads, report)
    if report:
        fp32 = next(figures for figures in prepared.figures if figures.backend == "torch-fp32")
        report.line(f"encoder: {summary(prepared.chosen, fp32)}")
        for note in prepared.notes:
            report.line(f"  {note}")
    return folder, prepared


def _key(model: ResolvedModel, backend: str, threads: int) -> str:
    """Name the folder by all that what is prepared, and what is measured, depends on."""
    asked = {
        "format": _FORMAT,
        "backend": backend,
        "threads": threads,
        "versions": dict(_versions()),
        "machine": [platform.system(), platform.machine(), *_processor(), _gpu()],
    }
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"{model.fingerprint}-{digest[:16]}"


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def _processor() -> list[str]:
    """Its name and features, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return [platform.processor()]
    return [line for line in lines if line.startswith(("model name", "flags", "CPU part", "Features"))]


def _gpu() -> bool:
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _read(folder: Path) -> Prepared | None:
    """Read what was prepared; None when it is absent or damaged."""
    try:
        prepared = Prepared.model_validate_json((folder / _PREPARED_FILE).read_bytes())
        return prepared if prepared.files == _checksums(folder) else None
    except (OSError, ValueError):
        return None


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _PREPARED_FILE)
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


def _prepare_once(
    folder: Path, model: ResolvedModel, backend: Backend, threads: int, report: "Reporter | None"
) -> Prepared:
    """Prepare an encoder unless another process has just done it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder.with_name(f"{folder.name}.lock")))
        except OSError as error:
            raise UserError(
                f"The cache folder {folder.parent} cannot be written ({error.strerror}); "
                "set CAUSALNEG_CACHE to one that can."
            ) from error
        if prepared := _read(folder):
            return prepared
        if report:
            report.line(f"encoder: preparing {model.name} for this machine, once")
        with whole_folder(folder) as fresh:
            prepared = _Preparation(model, backend, threads, fresh).run()
            (fresh / _PREPARED_FILE).write_text(prepared.model_dump_json(indent=1), encoding="utf-8")
        return prepared


def _open(folder: Path, prepared: Prepared, model: ResolvedModel, threads: int) -> Encoder:
    """Open a prepared encoder."""
    name, dtype, layout = prepared.chosen.backend, prepared.chosen.dtype, prepared.layout
    if name in RUNTIMES:
        forward = RUNTIMES[name].open(folder / name, dtype, threads)
        return Encoder(name, dtype, layout, FileTokeniser(folder / TOKENIZER_FILE, layout), forward)
    from causalneg.serving.encoders import pytorch

    loaded = pytorch.load(model, threads)
    tokeniser: Tokeniser = (
        FileTokeniser(folder / TOKENIZER_FILE, layout) if layout.tokenizer else pytorch.ModelTokeniser(loaded, layout)
    )
    return Encoder(
        name, dtype, layout, tokeniser, pytorch.forward_of(pytorch.SentenceModule(loaded, model.name), dtype)
    )


class _Preparation:
    """Tries backends, keeps the files of the best in a folder, and notes why others were not taken."""

    def __init__(self, model: ResolvedModel, backend: Backend, threads: int, folder: Path) -> None:
        self._model, self._backend, self._threads, self._folder = model, backend, threads, folder
        self._notes: list[str] = []

    def run(self) -> Prepared:
        """Convert, compare and choose."""
        from causalneg.serving.encoders import pytorch

        loaded = pytorch.load(self._model, self._threads)
        module = pytorch.SentenceModule(loaded, self._model.name)
        own = _own_vectors(loaded, self._model.name)
        layout, tokeniser = self._tokeniser(loaded)

        near: dict[Encoder, float] = {}
        for name, dtype in _TORCH_DTYPES.items():
            if dtype == "float32" or pytorch.has_bf16(loaded):
                encoder = Encoder(name, dtype, layout, tokeniser, pytorch.forward_of(module, dtype))
                near |= self._if_near(encoder, own)
            else:
                self._notes.append(f"{name} was not tried: this processor has no bf16 instructions")
        if "torch-fp32" not in {encoder.name for encoder in near}:
            raise pytorch.more_than_ids(self._model.name, "its vectors depend on more than a text's tokens")
        for name, runtime in RUNTIMES.items():
            if self._wants(name, runtime, layout):
                near |= self._converted(name, runtime, module, layout, tokeniser, own)

        figures = measure(near)
        chosen = self._choose(figures)
        for name in RUNTIMES.keys() - {chosen.backend}:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        return Prepared(
            chosen=chosen, layout=layout, figures=figures, notes=self._notes, files=_checksums(self._folder)
        )

    def _tokeniser(self, loaded: "SentenceTransformer") -> tuple[InputLayout, Tokeniser]:
        """Make a tokenizer that needs no model if there is one that gives the same tokens."""
        from causalneg.serving.encoders import pytorch

        layout = pytorch.layout_of(loaded, self._model.name)
        own = pytorch.ModelTokeniser(loaded, layout)
        if layout.tokenizer:
            path = self._folder / TOKENIZER_FILE
            pytorch.write_tokenizer(loaded, path)
            alone = FileTokeniser(path, layout)
            if all(
                alone(texts, layout.prompts[kind], side) == own(texts, layout.prompts[kind], side)
                for kind, texts in TEXTS.items()
                for side in ("right", "left")
            ):
                return layout, alone
        self._notes.append("its tokenizer needs the model beside it, so only torch can run it")
        return layout.model_copy(update={"tokenizer": False}), own

    def _wants(self, name: str, runtime: Runtime, layout: InputLayout) -> bool:
        """Whether to try a runtime; a note says why not."""
        if self._backend not in ("auto", name):
            return False
        if runtime.missing:
            self._notes.append(f"{name} was not tried: {' and '.join(runtime.missing)} must be installed")
        elif self._model.weights_gib > _LARGEST_GIB:
            self._notes.append(f"{name} was not tried: the model has more than {_LARGEST_GIB} GiB of weights")
        else:
            return layout.tokenizer
        return False

    def _converted(
        self,
        name: str,
        runtime: Runtime,
        module: "SentenceModule",
        layout: InputLayout,
        tokeniser: Tokeniser,
        own: np.ndarray,
    ) -> dict[Encoder, float]:
        """Convert the model for a runtime and compare it; none when that fails, as it may for a model of any kind."""
        folder = self._folder / name
        folder.mkdir()
        near: dict[Encoder, float] = {}
        try:
            runtime.convert(module, folder)
            for dtype in runtime.dtypes():
                encoder = Encoder(name, dtype, layout, tokeniser, runtime.open(folder, dtype, self._threads))
                near |= self._if_near(encoder, own)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._notes.append(f"{name} cannot run the model: {reason}")
            return {}
        return near

    def _if_near(self, encoder: Encoder, own: np.ndarray) -> dict[Encoder, float]:
        """Return an encoder with its smallest cosine to the model, if that is near enough; a note says if not."""
        try:
            cosine = agreement(encoder, own)
        except EncoderFailed as error:
            self._notes.append(f"{encoder.name} in {encoder.dtype} was not taken: {error}")
            return {}
        if cosine >= COSINE_GATE:
            return {encoder: cosine}
        self._notes.append(
            f"{encoder.name} in {encoder.dtype} was not taken: its smallest cosine to the model's own vectors is "
            f"{cosine:.5f}, below {COSINE_GATE}"
        )
        return {}

    def _choose(self, figures: list[Figures]) -> Figures:
        """Take the fastest.

        Raises:
            UserError: the backend that was asked for is not among them.
        """
        allowed = [f for f in figures if self._backend in ("auto", f.backend)]
        if not allowed:
            reasons = [note for note in self._notes if not note.startswith("torch") or self._backend in note]
            raise UserError(f"serve.backend {self._backend}: {'; '.join(reasons)}; take auto.")
        return min(allowed, key=lambda f: f.latency)


def _own_vectors(loaded: "SentenceTransformer", name: str) -> np.ndarray:
    """What sentence-transformers itself makes of the sample."""
    functions = {"query": loaded.encode_query, "document": loaded.encode_document}
    vectors = np.concatenate(
        [
            functions[kind](list(texts), normalize_embeddings=True, show_progress_bar=False)
            for kind, texts in TEXTS.items()
        ]
    )
    if not np.isfinite(vectors).all():
        raise UserError(f"The model {name} gives vectors with NaN or infinity; train it again, or name another.")
    return vectors
