"""The train stage: encoder and negatives in, trained encoder out."""

import importlib.metadata
from contextlib import closing
from dataclasses import replace
from typing import Any

import yaml

from causalneg import __version__
from causalneg.config import Config, EncoderSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.examples import accepted
from causalneg.false_negatives import verdict_stages
from causalneg.models import ResolvedModel, Start, resolve
from causalneg.prompts import said_prompts, used_prompts
from causalneg.records import Mined, Negative
from causalneg.training.data.store import HELD_OUT_IDS, Data
from causalneg.training.encoder.card import CardFacts, ModelFacts, render
from causalneg.training.launcher import DATA, launch, training_log
from causalneg.training.page import page
from causalneg.training.trackers import open_trackers
from causalneg.workspace import HELD_OUT, Counts, Manifest, Stage, Workspace

PAGE = "training/report.html"
_SETTINGS = "model/causalneg.yaml"  # not JSON, which is of the model and in its fingerprint
_DEV = ("before", "best")
_COUNTED = ("mined", "generated", "held_out", "without_negative", "same_as_positive")
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
    """See that there is any negative, before anything is begun; shared candidates need none.

    Raises:
        UserError: there is none.
    """
    if config.train.loss.candidates != "own":
        return
    wanted: list[tuple[str, type[Mined | Negative]]] = [("mined", Mined)] * bool(config.train.mined_per_query)
    wanted += [("negatives", Negative)] * bool(config.train.generated_per_query)
    if not any(next(accepted(workspace, folder, record, "query_id"), None) for folder, record in wanted):
        raise UserError(
            f"No train pair of {workspace.root_url} has an accepted negative; "
            "look at the thresholds of mine and generate, and at train.mined_per_query, or set train.loss.candidates "
            "to in_batch or global, which need none."
        )


def _say_prompts(model: ResolvedModel, settings: EncoderSettings, report: Reporter) -> None:
    """Say what is put before texts, and which setting puts something there where the model has no prompt."""
    wanted = {"query": settings.query_prompt, "document": settings.passage_prompt}
    model = replace(model, start=Start(query_prompt=wanted["query"], passage_prompt=wanted["document"]))
    names = {"query": "train.encoder.query_prompt", "document": "train.encoder.passage_prompt"}
    unset = [names[kind] for kind, prompt in used_prompts(model).items() if not prompt and wanted[kind] is None]
    hint = f"; if it was trained with a prompt there, set {' and '.join(unset)}" if unset else ""
    report.line(f"train: {said_prompts(model)}{hint}")


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Train `config.encoder` on the train pairs with their negatives and write it to `model/`.

    Raises:
        UserError: an earlier stage is missing, no pair has a negative, the encoder cannot be trained as asked, or Ray
            has too few resources.
    """
    settings = config.train
    model = resolve(config.encoder)
    workspace.local_folder("training")  # a remote workspace is refused before anything is begun
    stage = workspace.begin(
        "train",
        {
            "encoder": {"name": model.name, "fingerprint": model.fingerprint},
            "seed": config.seed,
            "train": settings.model_dump(mode="json", exclude=_RESOURCES),
        },
        _inputs(config, workspace),
        check=lambda: _require_negatives(config, workspace),
        say=report.line,
    )
    if stage.done:
        report.line(f"train: already done, {stage.done.details['steps']} steps")
        return stage.done
    _say_prompts(model, settings.encoder, report)
    if settings.loss.candidates == "in_batch" and settings.workers > 1:
        report.line("train: in_batch candidates are those of a worker; global ones are the same for any number of them")
    shown, building = settings.model_dump(mode="json"), stage.workspace
    folder = building.local_folder("training")
    with closing(
        open_trackers(settings.trackers, f"causalneg-{stage.key[:8]}", folder, shown, report.line)
    ) as trackers:
        summary = launch(building, model, settings, config.seed, report, trackers)
    store = building.local_folder(DATA)
    facts = Data(store).facts
    building.write_bytes(HELD_OUT, (store / HELD_OUT_IDS).read_bytes())
    used = facts["rows"]
    names = ("mined", "generated", "held_out", "without_negative", "same_as_positive", "false_negatives")
    counted = {name: facts.get(name, 0) for name in names}
    details = {**summary, **counted, "trained": used - facts["held_out"]}
    records = training_log(building).read()
    building.write_bytes(PAGE, page(records, _for_page(config, model, details)).encode())
    _describe(config, building, model, details)
    manifest = stage.finish(
        Counts(rows_in=facts["pairs"], accepted=used, rejected=facts["pairs"] - used),
        details=details,
    )
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
    workspace.write_bytes(_SETTINGS, yaml.safe_dump(described, sort_keys=False, allow_unicode=True).encode())
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
