"""Stops training where its numbers are none any more, before anything is measured, logged or kept of them."""

from pathlib import Path

import torch
from torch import Tensor

from causalneg.config import TrainSettings
from causalneg.errors import UserError
from causalneg.training import checkpoint
from causalneg.training.encoder.encoder import Encoder

_LEAST_SCALE = 2.0**-20  # of the loss with fp16; where gradients overflow below it, none is small enough


class Finite:
    """Knows whether loss, gradients and weights are finite; nothing waits for the device until it is asked.

    What it notes are sums over all workers, and weights are the same in all: so all of them stop at the same place.

    Args:
        encoder: is trained.
        settings: of the stage, for the message.
        checkpoints: folder of the training state, for the message.
    """

    def __init__(self, encoder: Encoder, settings: TrainSettings, checkpoints: Path) -> None:
        self._encoder, self._settings, self._checkpoints = encoder, settings, checkpoints
        self._since = torch.zeros((), dtype=torch.int64, device=encoder.device)  # the first step that was not; 0: none

    def note(self, step: int, sums: Tensor, norm: Tensor, scale: Tensor) -> None:
        """Take in a step.

        Args:
            step: its number, from 1.
            sums: the parts of its loss.
            norm: of its gradient.
            scale: the factor of the loss. With fp16 a gradient may overflow: the step is left out, the factor halved.
        """
        fp16 = self._encoder.precision == "fp16"
        gradient = scale > _LEAST_SCALE if fp16 else norm.isfinite()
        broken = ~(sums.isfinite().all() & gradient)
        self._since = torch.where((self._since == 0) & broken, step, self._since)

    def require(self, step: int) -> None:
        """See that everything was finite up to a step, and that the weights are.

        Raises:
            UserError: something was not.
        """
        if since := int(self._since):
            raise self.refusal("The loss or its gradient is", since)
        if not all(bool(weight.isfinite().all()) for weight in self._encoder.model.parameters()):
            raise self.refusal("Weights of the encoder are", step)

    def refusal(self, what: str, step: int) -> UserError:
        """Return the error that says what is not finite, since which step, why that may be, and what is kept.

        Args:
            what: is not finite, with its verb.
            step: the number of steps done; 0 is before the first.
        """
        remedies = []
        if step:
            remedies.append(f"lower train.learning_rate ({self._settings.learning_rate:g})")
        if self._encoder.precision == "fp16":
            remedies.append("set train.precision to bf16 or fp32, as large numbers overflow in fp16")
        remedies.append("see whether the weights of the encoder are sound")
        place = f"at step {step}" if step else "before the first step"
        kept, state = checkpoint.newest(self._checkpoints), "there is no checkpoint yet"
        if kept:
            state = f"the last good checkpoint, of step {checkpoint.step_of(kept)}, is kept in {kept}"
        return UserError(f"{what} NaN or infinite {place}: {', or '.join(remedies)}; {state}.")
