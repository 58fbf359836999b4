"""Tokenises without the model, and without importing what loads it."""

from collections.abc import Sequence
from pathlib import Path

from causalneg.serving.encoders.encoder import InputLayout, Tokens
from causalneg.serving.schema import Cut

TOKENIZER_FILE = "tokenizer.json"


class FileTokeniser:
    """Tokenises with a `tokenizer.json`.

    A tokenizer's methods may run side by side as long as none changes it. So there is one for each side at which
    texts are cut, and neither is changed once it is made.

    Args:
        path: of the file.
        layout: of the model.
    """

    def __init__(self, path: Path, layout: InputLayout) -> None:
        from tokenizers import Tokenizer

        def cutting(side: Cut) -> Tokenizer:
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_padding()
            tokenizer.enable_truncation(layout.max_length, direction=side)
            tokenizer.encode_special_tokens = layout.split_special_tokens
            return tokenizer

        self._tokenizers: dict[Cut, Tokenizer] = {"right": cutting("right"), "left": cutting("left")}

    def __call__(self, texts: Sequence[str], prompt: str, cut: Cut) -> list[Tokens]:
        """Tokenise each text behind the prompt, cut at the model's longest."""
        encodings = self._tokenizers[cut].encode_batch_fast([prompt + text for text in texts])
        return [Tokens(encoding.ids, bool(encoding.overflowing)) for encoding in encodings]
