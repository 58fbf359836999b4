"""One trial: an arm with a seed is trained and measured once; what it gave is kept, and not paid for again."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from benchmarks.common import machine
from benchmarks.experiment.arms import Arm, make_workspace, negatives_of, numbers_of
from benchmarks.experiment.examples import Examples
from benchmarks.experiment.measures import Held, Measured, measure_encoder
from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.evaluation.contrast import ContrastPair
from causalneg.models import resolve
from causalneg.records import content_id
from causalneg.starting import starting
from causalneg.training.run import run as train
from causalneg.workspace import Workspace

BASE = "base encoder"
# Settings that a trial depends on beside its data and its encoder.
_DETERMINES = {"seed", "encode", "train", "evaluate"}


class Cost(BaseModel):
    """What an arm costs: seconds, steps and negatives of training, and tokens of the LLM for those generated."""

    train_seconds: float = 0.0
    steps: int = 0
    negatives: int = 0
    generated: int = 0


class Trial(BaseModel):
    """What an arm gave with a seed, and the machine that trained and measured it."""

    arm: str
    seed: int
    machine: str = "not recorded"  # of trials that were kept before it was
    measured: Measured
    cost: Cost


class Lab(NamedTuple):
    """What all trials share.

    Attributes:
        folder: trials lie there.
        base: the data, imported and mined.
        config: settings before an arm changes them.
    """

    folder: Path
    base: Workspace
    config_file: Path
    flags: dict[str, Any]
    examples: Examples
    held: Held
    contrast: Sequence[ContrastPair]

    def config(self, seed: int, changes: dict[str, Any] | None = None) -> Config:
        """Return the settings of a trial."""
        return load_config(self.config_file, self.flags | {"seed": seed} | (changes or {}))


def _once(lab: Lab, key: str, name: str, make: Any) -> Trial:  # noqa: ANN401 - a function without arguments
    file = lab.folder / "trials" / f"{name.replace(' ', '-')}-{key}.json"
    if file.exists():
        try:
            return Trial.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise SystemExit(f"The kept trial {file} is damaged; remove it, and it is run again.") from error
    trial: Trial = make()
    Workspace(str(lab.folder)).write_bytes(f"trials/{file.name}", trial.model_dump_json().encode())
    return trial


def _data_key(lab: Lab) -> str:
    held = [lab.held.query_ids, lab.held.generated]
    return content_id(lab.base.require("import").digest, held, len(lab.contrast))


def base_trial(lab: Lab, report: Reporter) -> Trial:
    """Measure the encoder that training starts from."""
    config = lab.config(0)
    model = starting(resolve(config.encoder), config.train.encoder)
    key = content_id(_data_key(lab), model.fingerprint, config.evaluate.model_dump(mode="json"))

    def make() -> Trial:
        measured = measure_encoder(model, lab.base, lab.held, lab.contrast, config, report)
        return Trial(arm=BASE, seed=0, machine=machine(), measured=measured, cost=Cost())

    return _once(lab, key, BASE, make)


def run_trial(lab: Lab, arm: Arm, seed: int, report: Reporter) -> Trial:
    """Train an arm and measure it; its workspace is removed once that is kept."""
    settings = lab.config(seed, arm.changes)
    total, most = numbers_of(arm, settings)
    rows = [negatives_of(arm, e, settings) for e in lab.examples.train]
    config = settings.model_copy(
        update={"train": settings.train.model_copy(update={"mined_per_query": total, "generated_per_query": most})}
    )
    taken = [[m.passage_id for m in mined] + [n.id for n in generated] for mined, generated in rows]
    encoder = resolve(config.encoder).fingerprint
    key = content_id(_data_key(lab), encoder, config.model_dump(mode="json", include=_DETERMINES), taken)
    folder = lab.folder / "work" / key

    def make() -> Trial:
        workspace = make_workspace(lab.base, folder, arm, lab.examples.train, settings)
        manifest = train(config, workspace, report)
        model = resolve(str(workspace.local_folder("model")))
        measured = measure_encoder(model, workspace, lab.held, lab.contrast, config, report)
        cost = Cost(
            train_seconds=manifest.seconds,
            steps=manifest.details["steps"],
            negatives=sum(map(len, taken)),
            generated=sum(len(generated) for _, generated in rows),
        )
        return Trial(arm=arm.name, seed=seed, machine=machine(), measured=measured, cost=cost)

    trial = _once(lab, key, f"{arm.name}-{seed}", make)
    if folder.exists():
        shutil.rmtree(folder)
    return trial
