"""Training state on disk: safetensors and JSON, whole or absent, enough to go on as if nothing had happened.

There is no random state in it: the order of rows follows from seed and epoch, and nothing else is random.
There is no scheduler state: the learning rate follows from the step.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from causalneg.files import sync

_PREFIX = "step-"


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder, or None."""
    return max(folder.glob(f"{_PREFIX}*"), default=None)


def step_of(checkpoint: Path | None) -> int:
    """Return how many optimiser steps a checkpoint holds."""
    return int(checkpoint.name.removeprefix(_PREFIX)) if checkpoint else 0


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Path:
    """Write a checkpoint beside the earlier ones, which then go.

    Args:
        folder: where checkpoints lie.
        step: optimiser steps done.
        model: its weights.
        optimizer: its moments.
        state: what else is needed; JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(left)
    fresh = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=folder))
    save_model(model, str(fresh / "model.safetensors"))
    moments = {
        f"{number}.{name}": value.contiguous()
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    save_file(moments, fresh / "optimizer.safetensors")
    (fresh / "state.json").write_text(json.dumps(state))
    for path in fresh.iterdir():
        sync(path)
    target = folder / f"{_PREFIX}{step:08d}"
    if target.exists():
        shutil.rmtree(target)
    fresh.rename(target)
    sync(folder)
    for old in folder.glob(f"{_PREFIX}*"):
        if old != target:
            shutil.rmtree(old)
    return target


def load(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint's weights and moments in place and return its `state`."""
    load_model(model, checkpoint / "model.safetensors")
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(checkpoint / "optimizer.safetensors").items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    return dict(json.loads((checkpoint / "state.json").read_text()))
