"""The train stage: encoder and negatives in, trained encoder out."""

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.models import resolve
from causalneg.records import Source
from causalneg.training.batch import steps_per_epoch
from causalneg.training.launcher import launch
from causalneg.training.rows import select
from causalneg.workspace import Counts, Manifest, Stage, Workspace

_RESOURCES = {"workers", "threads", "gpu", "checkpoint_every"}  # settings that the result does not depend on


def _inputs(config: Config, workspace: Workspace) -> list[Stage]:
    if not config.train.generated_per_query:
        return ["import", "mine"]
    if workspace.manifest("generate") is None:
        raise UserError(
            f"The workspace {workspace.root_url} has no finished generate; run `causalneg generate` first, "
            "or set train.generated_per_query to 0 to train on mined negatives only."
        )
    return ["import", "mine", "generate"]


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Train `config.encoder` on the train pairs with their negatives and write it to `model/`.

    Raises:
        UserError: an earlier stage is missing, no pair has a negative, or Ray has too few resources.
    """
    settings = config.train
    model = resolve(config.encoder)
    workspace.local_folder("model")  # a remote workspace is refused before anything is begun
    stage = workspace.begin(
        "train",
        {
            "encoder": {"name": model.name, "fingerprint": model.fingerprint},
            "seed": config.seed,
            "train": settings.model_dump(mode="json", exclude=_RESOURCES),
        },
        _inputs(config, workspace),
    )
    if stage.done:
        report.line(f"train: already done, {stage.done.details['steps']} steps")
        return stage.done

    selection = select(workspace, settings)
    used = len(selection.rows)
    if not used:
        raise UserError(
            f"None of the {selection.pairs} train pairs of {workspace.root_url} has an accepted negative; "
            "look at the thresholds of mine and generate."
        )
    mined, generated = selection.count(Source.MINED), selection.count(Source.GENERATED)
    steps = settings.epochs * steps_per_epoch(used, settings.batch_size)
    report.line(
        f"train: {used} of {selection.pairs} pairs with {mined} mined and {generated} generated negatives, "
        f"{steps} steps"
    )
    summary = launch(workspace, model, settings, config.seed, steps, report)
    manifest = stage.finish(
        Counts(rows_in=selection.pairs, accepted=used, rejected=selection.pairs - used),
        details={**summary, "mined": mined, "generated": generated, "workers": settings.workers},
        folders=["model"],
    )
    workspace.remove("checkpoints")
    last = summary["epochs"][-1]
    report.line(
        f"train: done, loss {summary['epochs'][0]['loss']:.3f} in the first epoch, "
        f"{last['loss']:.3f} in the last, {summary['rows_per_second']:.1f} queries/s, {summary['precision']}"
    )
    return manifest
