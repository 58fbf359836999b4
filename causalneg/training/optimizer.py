"""The optimiser's parts that are pure functions of the step, and the gradients as one tensor."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def learning_rate(
    step: int, steps: int, warmup: float, peak: float, schedule: Literal["linear", "cosine", "constant"]
) -> float:
    """Return the rate of a step (from 0): a linear rise over the first `warmup` share, then by schedule."""
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    left = (steps - step) / (steps - rising)
    if schedule == "linear":
        return peak * left
    return peak if schedule == "constant" else peak * (1 + math.cos(math.pi * (1 - left))) / 2


def adamw(parameters: Sequence[torch.nn.Parameter], rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return AdamW; biases and norms do not decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, fused=True)


class FlatGradients:
    """All gradients, and behind them sums to be logged, in one tensor: one exchange between workers per step.

    Args:
        parameters: their `grad` becomes a part of the tensor.
        sums: how many numbers stand behind the gradients.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], sums: int) -> None:
        total = sum(p.numel() for p in parameters)
        self.flat = torch.zeros(total + sums, device=parameters[0].device)
        self.gradients, self.sums = self.flat[:total], self.flat[total:]
        start = 0
        for parameter in parameters:
            parameter.grad = self.gradients[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients down to a norm, without waiting for the device; return the norm they had."""
        norm = self.gradients.norm()
        self.gradients.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm
