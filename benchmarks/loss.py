"""The loss of a batch, forward and backward, against a loop over its rows.

    python -m benchmarks.loss

The loop is the same loss as one writes it without a batched form: rows are of any length, their mined and generated
negatives are tensors of their own, and nothing in it is computed twice but the similarities for the entropy, whose
gradient passes to generated negatives only. Both sides get the same vectors in the layout that suits them, fp32, and
give the gradients of all vectors. On a processor both have one thread: the loop's products are too small for more,
and on a busy machine threads wait for each other.

The sides take turns of ten steps; a row holds each side's median step, and the ratio of the two. At a side's second
step its vectors are in the processor's cache, where an encoder that has just made them leaves them. With `caches cold`
a turn is one step, and each side finds the cache full of what the other has left there.

`difference` is the largest absolute difference over the loss and all gradients; its ratio is what is allowed over it.
With candidates `in_batch` both let every passage of the other rows compete, too.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.common import RESULTS, Row, publish
from causalneg.config import LossSettings
from causalneg.console import Reporter
from causalneg.training.objective.loss import Shared, count, loss

_ROWS, _MINED, _GENERATED, _DIM = 64, 15, 3, 1024
_STEPS, _QUICK_STEPS, _TURN = 200, 10, 10
_SPEED_GOAL, _DIFFERENCE_GOAL = 10, 1e-6
_LOOP = "a loop over rows"

Gradients = tuple[Tensor, list[Tensor]]
"""The loss, and the gradients of queries `[rows, dim]`, positives `[rows, dim]`, negatives `[rows, width, dim]`."""


@dataclass(frozen=True)
class Ragged:
    """A batch as lists: a row's query and positive `[dim]`, its mined and generated negatives `[n, dim]`."""

    queries: list[Tensor]
    positives: list[Tensor]
    mined: list[Tensor]
    generated: list[Tensor]


def draw(device: torch.device, rows: int = _ROWS, dim: int = _DIM) -> tuple[Tensor, Tensor, Tensor]:
    """Draw queries, positives and negatives, the generated ones last: vectors of length 1, as alike as real ones."""
    generator = torch.Generator().manual_seed(0)

    def vectors(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, dim, generator=generator) + 1.0
        return normalize(drawn, dim=-1).to(device)

    return vectors(rows), vectors(rows), vectors(rows, _MINED + _GENERATED)


def _row_loss(
    query: Tensor, positive: Tensor, mined: Tensor, generated: Tensor, others: Tensor | None, settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """Return InfoNCE and the entropy term of one row that has generated negatives."""
    candidates = [(query @ positive).reshape(1), mined @ query, generated @ query]
    if others is not None:
        candidates.append(others)
    info_nce = -torch.log_softmax(torch.cat(candidates) / settings.temperature, 0)[0]
    query = query.detach()
    similarity = torch.cat([mined.detach() @ query, generated @ query]) / settings.entropy_temperature
    probability = torch.softmax(similarity, 0)[len(mined) :]
    mass = probability.sum()
    share = probability / mass
    balance = (mass - len(generated) / len(similarity)).square()
    return info_nce, balance + torch.xlogy(share, share).sum()


def loop_loss(batch: Ragged, settings: LossSettings) -> Tensor:
    """Return the loss of a batch, one row at a time."""
    in_batch = settings.candidates == "in_batch"
    if in_batch:
        # A row's passages stand together: everything before and after them is the other rows'.
        rows = zip(batch.positives, batch.mined, batch.generated, strict=True)
        blocks = [torch.cat([p.unsqueeze(0), m, g]) for p, m, g in rows]
        passages, start = torch.cat(blocks), 0
    info_nces, entropies = [], []
    for r, query in enumerate(batch.queries):
        others = None
        if in_batch:
            cosines, end = passages @ query, start + len(blocks[r])
            others, start = torch.cat([cosines[:start], cosines[end:]]), end
        info_nce, entropy = _row_loss(query, batch.positives[r], batch.mined[r], batch.generated[r], others, settings)
        info_nces.append(info_nce)
        entropies.append(entropy)
    return torch.stack(info_nces).mean() + settings.entropy_weight * torch.stack(entropies).mean()


def _ours(batch: tuple[Tensor, Tensor, Tensor], settings: LossSettings) -> Callable[[], Gradients]:
    query, positive, negatives = leaves = [t.clone().requires_grad_() for t in batch]
    rows, width, device = *negatives.shape[:2], query.device
    mask = torch.ones(rows, width, dtype=torch.bool, device=device)
    generated = torch.zeros_like(mask)
    generated[:, _MINED:] = True
    counts = count(mask.cpu().numpy(), generated.cpu().numpy())
    if settings.candidates == "in_batch":
        owner = torch.arange(rows, device=device).repeat_interleave(1 + width)
        others = owner != torch.arange(rows, device=device).unsqueeze(1)
        flags = torch.cat([torch.zeros_like(mask[:, :1]), generated], dim=1).flatten()
        none = torch.zeros(len(flags), device=device)

    def step() -> Gradients:
        shared = None
        if settings.candidates == "in_batch":
            passages = torch.cat([positive.unsqueeze(1), negatives], dim=1).flatten(0, 1)
            shared = Shared(passages, others, flags, none)
        value, _ = loss(query, positive, negatives, mask, generated, settings, counts=counts, shared=shared)
        return value, list(torch.autograd.grad(value, leaves))

    return step


def _loop(batch: tuple[Tensor, Tensor, Tensor], settings: LossSettings) -> Callable[[], Gradients]:
    """Return the loop's step; its gradients are stacked to be compared outside of the time taken."""
    query, positive, negatives = batch
    parts = (query, positive, negatives[:, :_MINED], negatives[:, _MINED:])
    ragged = Ragged(*([row.clone().requires_grad_() for row in part] for part in parts))
    leaves = [*ragged.queries, *ragged.positives, *ragged.mined, *ragged.generated]

    def step() -> Gradients:
        value = loop_loss(ragged, settings)
        return value, list(torch.autograd.grad(value, leaves))

    return step


def _stacked(found: Gradients) -> Gradients:
    """Bring the loop's gradients into our layout."""
    value, gradients = found
    rows = len(gradients) // 4
    queries, positives, mined, generated = (torch.stack(gradients[k * rows : (k + 1) * rows]) for k in range(4))
    return value, [queries, positives, torch.cat([mined, generated], dim=1)]


def _difference(a: Gradients, b: Gradients) -> float:
    pairs = [(a[0], b[0]), *zip(a[1], b[1], strict=True)]
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


def _medians(steps: Sequence[Callable[[], Gradients]], times: int, turn: int, device: torch.device) -> list[float]:
    """Return each step's median milliseconds; they take turns, so that what else runs slows all of them."""
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(times // turn):
        for step, own in zip(steps, taken, strict=True):
            for _ in range(turn):
                started = time.perf_counter()
                step()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                own.append(1000 * (time.perf_counter() - started))
    return [statistics.median(own) for own in taken]


def measure(device: torch.device, times: int) -> list[Row]:
    """Measure own and in-batch candidates on one device."""
    suffix = "" if device.type == "cpu" else f", {device.type}"
    batch, rows = draw(device), list[Row]()

    def speed(name: str, sides: Sequence[Callable[[], Gradients]], turn: int, goal: float | None = None) -> Row:
        ours, loop = _medians(sides, times, turn, device)
        return Row(f"forward and backward{name}{suffix}", "ms", ours, _LOOP, loop, loop / ours, goal)

    def difference(name: str, sides: Sequence[Callable[[], Gradients]], goal: float | None = None) -> Row:
        found, allowed = _difference(sides[0](), _stacked(sides[1]())), _DIFFERENCE_GOAL
        ratio = allowed / max(found, 1e-12)
        return Row(f"difference{name}{suffix}", "absolute", found, "allowed", allowed, ratio, goal)

    settings = LossSettings()
    sides = [_ours(batch, settings), _loop(batch, settings)]
    rows += [speed("", sides, _TURN, _SPEED_GOAL), difference("", sides, _DIFFERENCE_GOAL)]
    rows.append(speed(", caches cold", sides, 1))
    settings = LossSettings(candidates="in_batch", share_generated=True)
    sides = [_ours(batch, settings), _loop(batch, settings)]
    return [*rows, speed(", in_batch", sides, _TURN), difference(", in_batch", sides)]


def main() -> None:
    """Measure both sides on each device there is and publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="not needed; taken as the other benchmarks do")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="a few turns only: does it run, not what it gives")
    arguments = parser.parse_args()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    times = _QUICK_STEPS if arguments.quick else _STEPS
    torch.set_num_threads(1)
    rows = [row for device in devices for row in measure(torch.device(device), times)]
    publish("loss", rows, Reporter(), arguments.results)


if __name__ == "__main__":
    main()
