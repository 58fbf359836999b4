"""The workers that train together, as one of them sees them."""

from typing import Protocol

from torch import Tensor


class Workers(Protocol):
    """The workers that train together, as one of them sees them."""

    rank: int
    size: int

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all workers; each of them must call this."""


class Alone:
    """The only worker."""

    rank, size = 0, 1

    def add_up(self, tensor: Tensor) -> None:
        """Leave the tensor as it is."""
