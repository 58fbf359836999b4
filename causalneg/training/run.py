"""The train stage: encoder and negatives in, trained encoder out."""

import importlib.metadata
import json
from contextlib import closing
from typing import Any

from causalneg import __version__
from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.examples import accepted
from causalneg.false_negatives import verdict_stages
from causalneg.models import ResolvedModel, resolve
from causalneg.records import Mined, Negative
from causalneg.training.data.store import HELD_OUT_IDS, Data
from causalneg.training.encoder.card import CardFacts, ModelFacts, render
from causalneg.training.launcher import DATA, launch, training_log
from causalneg.training.page import page
from causalneg.training.trackers import open_trackers
from causalneg.workspace import HELD_OUT, Counts, Manifest, Stage, Workspace

PAGE = "training/report.html"
_SETTINGS = "model/causalneg.json"
_DEV = ("before", "best")
_LIBRARIES = ("causalneg", "torch", "transformers", "sentence-transformers")
# Settings that the result does not depend on.
_RESOURCES = {"workers", "min_workers", "threads", "gpu", "checkpoint_every", "log_every", "trackers", "held_gib"}


def _inputs(config: Config, workspace: Workspace) -> list[Stage]:
    """Return the stages that training reads: those that judge mined negatives, and generate for what it wrote."""
    settings = config.train
    judging = verdict_stages(workspace) if settings.mined_per_query and settings.false_negatives == "remove" else []
    stages: list[Stage] = ["import", "mine", *judging]
    if not settings.generated_per_query or "generate" in stages:
        return stages
    if workspace.manifest("generate") is None:
        raise UserError(
            f"The workspace {workspace.root_url} has no finished generate; run `causalneg generate` first, "
            "or set train.generated_per_query to 0 to train on mined negatives only."
        )
    return [*stages, "generate"]


def _require_negatives(config: Config, workspace: Workspace) -> None:
    """See that there is any negative, before anything is begun.

    Raises:
        UserError: there is none.
    """
    wanted: list[tuple[str, type[Mined | Negative]]] = [("mined", Mined)] * bool(config.train.mined_per_query)
    wanted += [("negatives", Negative)] * bool(config.train.generated_per_query)
    if not any(next(accepted(workspace, folder, record, "query_id"), None) for folder, record in wanted):
        raise UserError(
            f"No train pair of {workspace.root_url} has an accepted negative; "
            "look at the thresholds of mine and generate, and at train.mined_per_query."
        )


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Train `config.encoder` on the train pairs with their negatives and write it to `model/`.

    Raises:
        UserError: an earlier stage is missing, no pair has a negative, the encoder cannot be trained as asked, or Ray
            has too few resources.
    """
    settings = config.train
    model = resolve(config.encoder)
    folder = workspace.local_folder("training")  # a remote workspace is refused before anything is begun
    stage = workspace.begin(
        "train",
        {
            "encoder": {"name": model.name, "fingerprint": model.fingerprint},
            "seed": config.seed,
            "train": settings.model_dump(mode="json", exclude=_RESOURCES),
        },
        _inputs(config, workspace),
        check=lambda: _require_negatives(config, workspace),
    )
    if stage.done:
        report.line(f"train: already done, {stage.done.details['steps']} steps")
        return stage.done
    if settings.loss.candidates == "in_batch" and settings.workers > 1:
        report.line("train: in_batch candidates are those of a worker; global ones are the same for any number of them")
    shown = settings.model_dump(mode="json")
    with closing(
        open_trackers(settings.trackers, f"causalneg-{stage.key[:8]}", folder, shown, report.line)
    ) as trackers:
        summary = launch(workspace, model, settings, config.seed, report, trackers)
    store = workspace.local_folder(DATA)
    facts = Data(store).facts
    workspace.write_bytes(HELD_OUT, (store / HELD_OUT_IDS).read_bytes())
    used = facts["rows"]
    counted = {name: facts[name] for name in ("mined", "generated", "held_out", "same_as_positive", "false_negatives")}
    details = {**summary, **counted, "trained": used - facts["held_out"]}
    records = training_log(workspace).read()
    workspace.write_bytes(PAGE, page(records, _for_page(config, model, details)).encode())
    _describe(config, workspace, model, details)
    manifest = stage.finish(
        Counts(rows_in=facts["pairs"], accepted=used, rejected=facts["pairs"] - used),
        details=details,
        folders=["model", "training"],
    )
    workspace.remove("checkpoints")
    _summarise(manifest, workspace, report)
    return manifest


def _for_page(config: Config, model: ResolvedModel, details: dict[str, Any]) -> dict[str, Any]:
    figures = {name: value for name, value in details.items() if name not in ("epochs", "model")}
    return {
        "figures": figures,
        "settings": {"base_model": model.name, "seed": config.seed, **config.train.model_dump(mode="json")},
    }


def _describe(config: Config, workspace: Workspace, model: ResolvedModel, details: dict[str, Any]) -> None:
    """Write the model's card, and beside it all settings and figures for machines."""
    train = config.train.model_dump(mode="json")
    described = {
        "version": __version__,
        "encoder": {"name": model.name, "fingerprint": model.fingerprint},
        "seed": config.seed,
        "train": train,
        "details": details,
    }
    workspace.write_bytes(_SETTINGS, json.dumps(described, indent=1).encode())
    card = CardFacts(
        name="model",
        base_model=model.name,
        model=ModelFacts.model_validate(details["model"]),
        encoder=config.train.encoder,
        train=train,
        source=str(workspace.require("import").config["import"]["source"]),
        pairs=details["trained"],
        mined=details["mined"],
        generated=details["generated"],
        figures={f"nDCG@10 on the dev queries, {name}": details["dev"][name] for name in _DEV if name in details["dev"]}
        | {"loss in the last epoch": details["epochs"][-1]["loss"]},
        precision=details["precision"],
        steps=details["steps"],
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )
    workspace.write_bytes("model/README.md", render(card).encode())


def _summarise(manifest: Manifest, workspace: Workspace, report: Reporter) -> None:
    details = manifest.details
    first, last = details["epochs"][0], details["epochs"][-1]
    report.line(
        f"train: done, loss {first['loss']:.3f} in the first epoch, {last['loss']:.3f} in the last, "
        f"{details['rows_per_second']:.1f} queries/s, {details['tokens_per_second']:,.0f} tokens/s, "
        f"{details['precision']}; {100 * details['waiting']:.1f} % of the steps' time waiting for data, "
        f"{100 * details['evaluating']:.0f} % of all for evaluations"
    )
    if dev := details["dev"]:
        ended = "stopped early; " if details["stopped_early"] else ""
        report.line(
            f"train: {ended}nDCG@10 on the dev queries {dev['before']:.4f} before, {dev['best']:.4f} at its best after "
            f"step {dev['best_step']:.0f}, which was kept"
        )
    report.line(f"train: {workspace.path(PAGE)}")
