"""Encodes texts for the served retriever, with whatever does it fastest on this machine."""

from causalneg.serving.encoders.encoder import EncoderFailed, QueryEncoder, Tokens, padded_tokens
from causalneg.serving.encoders.prepare import open_encoder, prepare_encoder

__all__ = ["EncoderFailed", "QueryEncoder", "Tokens", "open_encoder", "padded_tokens", "prepare_encoder"]
