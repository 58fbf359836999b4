"""Training rows and tokens as flat arrays on disk, mapped into memory: a worker holds the part it reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["query", "passage"]

# Every array is a file of numbers, one after the other, so that it can be written as a stream.
ARRAYS: dict[str, type[np.generic]] = {
    # Texts, by number: where their tokens start, one more at the end; `key` is the same for the same tokens.
    "query.tokens": np.int32,
    "query.start": np.int64,
    "query.key": np.uint64,
    "passage.tokens": np.int32,
    "passage.start": np.int64,
    "passage.key": np.uint64,
    # Rows: numbers of texts, the teacher's score of the positive, where the row's negatives start.
    "row.query": np.int32,
    "row.positive": np.int32,
    "row.teacher": np.float32,
    "row.start": np.int64,
    # Negatives of all rows: number of the text, whether generated, which weight rules hold, the teacher's score.
    "negative.passage": np.int32,
    "negative.generated": np.bool_,
    "negative.rules": np.uint32,
    "negative.teacher": np.float32,
    # Positives of each query, by the query's number.
    "known.start": np.int64,
    "known.passage": np.int32,
    # Rows to train on, rows held out; and what is searched on the dev queries: numbers of texts, and pairs of
    # positions in these two.
    "rows.train": np.int32,
    "rows.held_out": np.int32,
    "dev.query": np.int32,
    "dev.passage": np.int32,
    "dev.relevant": np.int32,
}
_FACTS = "facts.json"
HELD_OUT_IDS = "held_out.parquet"  # the ids of the queries held out


def is_whole(folder: Path) -> bool:
    """Whether a store was written to its end."""
    return (folder / _FACTS).exists()


def write_facts(folder: Path, facts: dict[str, int]) -> None:
    """Write the counts of a store, which is what makes it whole."""
    (folder / _FACTS).write_text(json.dumps(facts))


class Data:
    """The rows to train on and the tokens of their texts.

    Args:
        folder: a whole store.

    Attributes:
        facts: counts, as `prepare` returns them.
    """

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, int] = json.loads((folder / _FACTS).read_text())
        self._arrays = {name: mapped(folder, name) for name in ARRAYS}

    def __getitem__(self, name: str) -> np.ndarray:
        """Return an array by its name in `ARRAYS`."""
        return self._arrays[name]

    def lengths(self, kind: Kind, numbers: np.ndarray) -> np.ndarray:
        """Return how many tokens each text has, int64 `[numbers]`."""
        start = self[f"{kind}.start"]
        return np.asarray(start[numbers + 1] - start[numbers])

    def tokens(self, kind: Kind, numbers: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return the tokens of each text, int32."""
        start, tokens = self[f"{kind}.start"], self[f"{kind}.tokens"]
        return [tokens[start[n] : start[n + 1]] for n in numbers]


def mapped(folder: Path, name: str) -> np.ndarray:
    """Map an array of a store; what is empty cannot be mapped."""
    path, dtype = folder / name, ARRAYS[name]
    if not path.stat().st_size:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")
