"""Which checkpoint is the best so far, and whether to stop."""

import math
from collections.abc import Mapping
from typing import Any


class Best:
    """The best value so far, the step it was reached at, and how long ago that was.

    A tie keeps the earlier step: it took less training. NaN is never the best.

    Args:
        patience: evaluations without a better value after which to stop; None never stops.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.step: int | None = None
        self.value: float | None = None
        self.waited = 0  # evaluations since the best

    def update(self, step: int, value: float) -> bool:
        """Take in an evaluation and return whether it is the best so far; larger is better."""
        if not math.isnan(value) and (self.value is None or value > self.value):
            self.step, self.value, self.waited = step, value, 0
            return True
        self.waited += 1
        return False

    @property
    def should_stop(self) -> bool:
        """Whether the last `patience` evaluations were no better than the best before them."""
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return everything as a dict that JSON can hold."""
        return {"patience": self.patience, "step": self.step, "value": self.value, "waited": self.waited}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Best":
        """Go on from what `state` returned."""
        best = cls(state["patience"])
        best.step, best.value, best.waited = state["step"], state["value"], state["waited"]
        return best
