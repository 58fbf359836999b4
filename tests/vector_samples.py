"""Vectors that lie in memory."""

import numpy as np


class Held:
    """Vectors of numbered passages, as a search takes them."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return float32 `[numbers, dimension]`."""
        return self.vectors[numbers]
