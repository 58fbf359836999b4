"""Loads a model for training."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from causalneg.config import EncoderSettings
from causalneg.starting import load_start, start_of, transformer_of

_EAGER_LENGTH = 512  # tokens


def load(path: Path, settings: EncoderSettings, device: torch.device) -> SentenceTransformer:
    """Load a model for training, as `starting.load_start` does.

    Args:
        path: folder in sentence-transformers layout, or a plain Hugging Face one, with safetensors weights.
        settings: its pooling, attention and prompts are put into the model, and are saved with it.
        device: where to put it.

    Raises:
        UserError: the folder cannot be loaded, or the model cannot be what the settings want.
    """
    model = load_start(path, start_of(settings), device)
    if device.type == "cpu" and max(settings.query_length, settings.passage_length) <= _EAGER_LENGTH:
        # The fused kernel's backward pass is slow on processors: a step takes half the time without it.
        transformer_of(model).set_attn_implementation("eager")
    return model
