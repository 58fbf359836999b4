"""Runs the stages up to evaluate one after the other, and sums them up in a table."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.runtime import ray_session
from causalneg.workspace import Manifest, Stage, Workspace

STAGES: dict[Stage, str] = {
    "import": "causalneg.sources.run",
    "mine": "causalneg.mining.run",
    "relabel": "causalneg.generation.relabel.run",
    "generate": "causalneg.generation.run",
    "train": "causalneg.training.run",
    "index": "causalneg.indexing.run",
    "evaluate": "causalneg.evaluation.run",
}


def stages_of(config: Config) -> list[Stage]:
    """Return the stages that a config needs: without generated negatives in training, none are generated."""
    wanted = {"relabel": config.relabel.enabled, "generate": config.train.generated_per_query > 0}
    return [s for s in STAGES if wanted.get(s, True)]


def summary(manifests: list[Manifest]) -> list[list[str]]:
    """Return a row per stage: name, rows in, accepted, rejected, failed, seconds."""
    rows = []
    for manifest in manifests:
        counts = manifest.counts
        numbers = (counts.rows_in, counts.accepted, counts.rejected, counts.failed)
        rows.append([manifest.stage, *(f"{n:,}" for n in numbers), f"{manifest.seconds:.1f}"])
    return rows


@contextmanager
def _naming(stage: str) -> Iterator[None]:
    """Let a user's error say in which stage it was met."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{stage}: {error}") from error


def run(config: Config, workspace: Workspace, report: Reporter) -> list[Manifest]:
    """Run every stage that is not done, in one Ray session, and print the table.

    Raises:
        UserError: a stage met the user's mistake.
    """
    if config.generate.plan or config.relabel.plan:
        raise UserError("A plan goes with `causalneg generate --plan` or `relabel --plan`, not with all stages.")
    if config.index.merge:
        raise UserError("A merge goes with `causalneg index --merge true`, not with all stages.")
    manifests: list[Manifest] = []
    with ray_session():
        for stage in stages_of(config):
            with _naming(stage):
                manifests.append(importlib.import_module(STAGES[stage]).run(config, workspace, report))
    header = ["stage", "rows in", "accepted", "rejected", "failed", "seconds"]
    report.table("What each stage did", header, summary(manifests))
    return manifests
