"""The arms as data, and the workspace of one: the same pairs, as many negatives for each, and its own settings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.experiment.examples import BAND, Example, relative
from benchmarks.experiment.subset import with_train_pairs
from causalneg.config import Config
from causalneg.records import Mined, Negative
from causalneg.workspace import Counts, Workspace

COUNTERFACTUAL, NAIVE = "counterfactual", "naive"
MINED = "mined only"

_GENERATED = {"source": "generated"}
_NO_ENTROPY = {"train.loss.entropy_weight": 0.0}
_IN_BATCH = {"train.loss.candidates": "in_batch"}
_LONGER = {"train.epochs": 6}
# A candidate above 95 % of the positive's cosine is left out while it is there, generated ones, too.
_MARGIN = {
    "train.loss.false_negative_margin": 0.05,
    "train.loss.false_negative_kind": "relative",
    "train.loss.exempt_generated": False,
}


def _first(negatives: Sequence[Negative], number: int) -> list[Negative]:
    return list(negatives[:number])


def _easiest(negatives: Sequence[Negative], number: int) -> list[Negative]:
    """Take those that the base encoder finds least similar to the query."""
    return sorted(negatives, key=relative)[:number]


def _hardest(negatives: Sequence[Negative], number: int) -> list[Negative]:
    return sorted(negatives, key=relative, reverse=True)[:number]


def _banded(negatives: Sequence[Negative], number: int) -> list[Negative]:
    """Take the hardest up to what is asked of mined ones."""
    return _hardest([n for n in negatives if relative(n) <= BAND], number)


class Arm(NamedTuple):
    """What is trained with.

    Attributes:
        generated: kind of the generated negatives, if any.
        changes: settings that differ from the config's, by dotted name.
        choose: which of a pair's generated negatives are taken.
        number: how many are taken at most, mined ones give way; as in the config when unset.
    """

    name: str
    generated: str | None
    changes: dict[str, Any] = {}
    choose: Callable[[Sequence[Negative], int], list[Negative]] = _first
    number: int | None = None


def _weighted(weight: float, **rule: float) -> dict[str, Any]:
    return {"train.weights": [{**_GENERATED, "weight": weight, **rule}]}


MAIN = (
    Arm(MINED, None),
    Arm("mined + naive", NAIVE, _NO_ENTROPY),
    Arm("mined + counterfactual", COUNTERFACTUAL, _NO_ENTROPY),
    Arm("mined + counterfactual + entropy", COUNTERFACTUAL),
)
"""The comparison of the paper."""

_ONE = Arm("1 generated", COUNTERFACTUAL, number=1)

SWEEPS = (
    *(Arm(f"entropy λ {w:g}", COUNTERFACTUAL, {"train.loss.entropy_weight": w}) for w in (0.01, 0.2, 1.0)),
    *(Arm(f"entropy τ {t:g}", COUNTERFACTUAL, {"train.loss.entropy_temperature": t}) for t in (0.02, 0.5)),
    _ONE,
    Arm("3 generated", COUNTERFACTUAL, number=3),
)
"""λ and τ_ent around the published 0.05 and 0.1, and how many of the negatives are generated."""

RATIO = (
    Arm("1 generated, naive", NAIVE, _NO_ENTROPY, number=1),
    Arm("1 generated, no entropy", COUNTERFACTUAL, _NO_ENTROPY, number=1),
    _ONE,
    Arm("1 generated, the easiest", COUNTERFACTUAL, choose=_easiest, number=1),
    Arm("1 generated, band in the loss", COUNTERFACTUAL, _MARGIN, number=1),
)
"""The comparison with one generated negative: where a pair has six, the published share of 3 in 18."""

IMPROVEMENTS = (
    Arm("weight 0.2", COUNTERFACTUAL, _weighted(0.2)),
    Arm("weight 0.05", COUNTERFACTUAL, _weighted(0.05)),
    Arm("curriculum", COUNTERFACTUAL, _weighted(1.0, start=0.0, begin=0.25, end=1.0)),
    Arm("easiest", COUNTERFACTUAL, choose=_easiest),
    Arm("hardest", COUNTERFACTUAL, choose=_hardest),
    Arm("hardness band", COUNTERFACTUAL, choose=_banded),
    Arm("band in the loss", COUNTERFACTUAL, _MARGIN),
    Arm("in batch, mined only", None, _IN_BATCH),
    Arm("in batch, counterfactual", COUNTERFACTUAL, _IN_BATCH),
    Arm("in batch, shared", COUNTERFACTUAL, _IN_BATCH | {"train.loss.share_generated": True}),
    Arm("in batch, weight 0.2", COUNTERFACTUAL, _IN_BATCH | _weighted(0.2)),
    Arm("longer, mined only", None, _LONGER),
    Arm("longer, counterfactual", COUNTERFACTUAL, _LONGER),
    Arm("longer, 1 generated", COUNTERFACTUAL, _LONGER, number=1),
    Arm("longer, weight 0.2", COUNTERFACTUAL, _LONGER | _weighted(0.2)),
)
"""What was tried where an arm did not win."""

GROUPS = {"main": MAIN, "sweeps": SWEEPS, "ratio": RATIO, "improvements": IMPROVEMENTS}
ARMS = {arm.name: arm for group in GROUPS.values() for arm in group}


def numbers_of(arm: Arm, config: Config) -> tuple[int, int]:
    """Return how many negatives a pair has in all, and how many of them are generated at most."""
    total = config.train.mined_per_query + config.train.generated_per_query
    if arm.generated is None:
        return total, 0
    return total, config.train.generated_per_query if arm.number is None else arm.number


def negatives_of(arm: Arm, example: Example, config: Config) -> tuple[list[Mined], list[Negative]]:
    """Return a pair's negatives: as many in all in every arm, mined ones in the place of missing generated ones."""
    total, most = numbers_of(arm, config)
    generated = arm.choose(example.generated[arm.generated], most) if arm.generated else []
    return list(example.mined[: total - len(generated)]), generated


def make_workspace(base: Workspace, folder: Path, arm: Arm, examples: Sequence[Example], config: Config) -> Workspace:
    """Make the workspace of an arm: imported, mined and generated, as if its stages had made it so.

    Only the pairs of `examples` are of the split `train`; the false negative mask still sees other positives of it.
    """
    chosen = {(e.query_id, e.positive_id) for e in examples}
    workspace = with_train_pairs(base, folder, chosen, {"import": config.import_, "arm": arm.name})
    rows = {(e.query_id, e.positive_id): negatives_of(arm, e, config) for e in examples}
    mined = [m for e in examples if e.positive_row for m in (e.positive_row,)]
    mined += [m for taken, _ in rows.values() for m in taken]
    generated = [n for _, taken in rows.values() for n in taken]
    stage = workspace.begin("mine", {"rows": [(m.query_id, m.passage_id) for m in mined]}, ["import"])
    if not stage.done:
        stage.workspace.write_rows("mined", "part-00000", Mined, mined)
        stage.finish(Counts(rows_in=len(mined), accepted=len(mined)))
    stage = workspace.begin("generate", {"rows": [n.id for n in generated]}, ["import", "mine"])
    if not stage.done:
        stage.workspace.write_rows("negatives", "part-00000", Negative, generated)
        stage.finish(Counts(rows_in=len(generated), accepted=len(generated)))
    return workspace
