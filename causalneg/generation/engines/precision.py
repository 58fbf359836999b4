"""In which precision an engine in this process computes."""

import os
from typing import Literal

from causalneg.config import EngineSettings
from causalneg.runtime import supports_bf16

Precision = Literal["fp32", "bf16", "fp16"]


def engine_precision(settings: EngineSettings) -> Precision:
    """Return the precision that an engine on this machine computes in: what was set, or what it is good at."""
    import torch

    if settings.dtype != "auto":
        return settings.dtype
    if supports_bf16(torch.device("cuda" if settings.gpus else "cpu")):
        return "bf16"
    return "fp16" if settings.gpus else "fp32"


def expected_precision(settings: EngineSettings) -> Precision | None:
    """Return the same before an engine was started; None where it is up to the machines of a cluster."""
    if settings.dtype != "auto":
        return settings.dtype
    return None if settings.gpus or os.environ.get("RAY_ADDRESS") else engine_precision(settings)


def reason(settings: EngineSettings, precision: str) -> str:
    """Return why it is that precision, in words."""
    if settings.dtype != "auto":
        return "as the settings say"
    return "which the processor is good at" if precision == "bf16" else "since the processor has no fast bf16"
