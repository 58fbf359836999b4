"""Training state on disk: safetensors and JSON, whole or absent, enough to go on as if nothing had happened.

There is no random state in it: the order of rows follows from seed and epoch, dropout from seed and step. There is
no scheduler state: the learning rate follows from the step.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from causalneg.errors import UserError
from causalneg.files import whole_folder

_PREFIX = "step-"
_BEST = "best"


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder, or None."""
    return max(folder.glob(f"{_PREFIX}*"), default=None)


def step_of(checkpoint: Path | None) -> int:
    """Return how many optimiser steps a checkpoint holds."""
    return int(checkpoint.name.removeprefix(_PREFIX)) if checkpoint else 0


def save(
    folder: Path, step: int, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> Path:
    """Write a checkpoint beside the earlier ones, which then go.

    Args:
        folder: where checkpoints lie.
        step: optimiser steps done.
        weights: what training changes.
        optimizer: its moments.
        state: what else is needed; JSON.
    """
    for left in folder.glob(f".{_PREFIX}*"):  # of another step
        shutil.rmtree(left)
    target = folder / f"{_PREFIX}{step:08d}"
    with whole_folder(target) as fresh:
        save_file(_whole(weights), fresh / "model.safetensors")
        moments = {
            f"{number}.{name}": value.contiguous()
            for number, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        save_file(moments, fresh / "optimizer.safetensors")
        (fresh / "state.json").write_text(json.dumps(state))
    for old in folder.glob(f"{_PREFIX}*"):
        if old != target:
            shutil.rmtree(old)
    return target


def load(checkpoint: Path, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put a checkpoint's moments in place and return its weights and its `state`.

    Raises:
        UserError: the checkpoint is damaged.
    """
    try:
        flat = load_file(checkpoint / "optimizer.safetensors")
        weights = load_file(checkpoint / "model.safetensors")
        state = dict(json.loads((checkpoint / "state.json").read_text()))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"The checkpoint {checkpoint} is damaged ({error}); remove it, and training starts from the beginning."
        ) from error
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    return weights, state


def save_best(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Keep the weights that did best so far, in place of those kept before."""
    with whole_folder(folder / _BEST) as fresh:
        save_file(_whole(weights), fresh / "model.safetensors")


def load_best(folder: Path) -> dict[str, Tensor]:
    """Return the weights that were kept as the best."""
    return load_file(folder / _BEST / "model.safetensors")


def _whole(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in weights.items()}
