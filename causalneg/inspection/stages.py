"""Which stages of a workspace are done."""

import typing
from collections.abc import Mapping
from typing import Any

from causalneg.config import Config
from causalneg.errors import UserError
from causalneg.inspection.findings import StageFinding
from causalneg.stages import Stage, changed
from causalneg.workspace import Manifest, Workspace


def _settings(stage: Stage, config: Mapping[str, Any]) -> dict[str, Any]:
    defaults = Config().model_dump(mode="json", by_alias=True)[stage]
    own = config.get(stage, {})
    return changed(own, defaults) if isinstance(own, dict) else {}


def _is_outdated(workspace: Workspace, stage: Stage) -> bool:
    try:
        return workspace.is_outdated(stage)
    except UserError:  # an earlier manifest is damaged
        return True


def _find(workspace: Workspace, stage: Stage, files: set[str]) -> StageFinding:
    building = workspace.is_being_built(stage)
    try:
        manifest: Manifest | None = workspace.manifest(stage)
    except UserError:
        return StageFinding(stage=stage, state="damaged", building=building)
    if manifest is None:
        return StageFinding(stage=stage, state="unfinished" if building else "absent", building=building)
    finding = StageFinding(
        stage=stage,
        state="done",
        building=building,
        finished=manifest.finished,
        seconds=manifest.seconds,
        counts=manifest.counts,
        tokens=manifest.tokens,
        settings=_settings(stage, manifest.config),
        config=manifest.config,
        details=manifest.details,
    )
    if not manifest.files.keys() <= files:
        return finding.model_copy(update={"state": "damaged"})
    if _is_outdated(workspace, stage):
        return finding.model_copy(update={"state": "outdated"})
    return finding


def find_stages(workspace: Workspace, files: set[str]) -> list[StageFinding]:
    """Return the state of every stage, in the order of the pipeline.

    Args:
        workspace: is only read.
        files: all of its files, by path within it.
    """
    return [_find(workspace, stage, files) for stage in typing.get_args(Stage)]
