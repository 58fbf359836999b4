"""Which stages of a workspace are done."""

import typing
from collections.abc import Mapping
from typing import Any

from causalneg.config import Config
from causalneg.errors import UserError
from causalneg.inspection.findings import StageFinding
from causalneg.workspace import Manifest, Stage, Workspace


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings that differ from their defaults, by dotted name."""
    changed: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict) and default:
            changed |= _changed(value, default, f"{prefix}{name}.")
        elif value != default:
            changed[prefix + name] = value
    return changed


def _settings(stage: Stage, config: Mapping[str, Any]) -> dict[str, Any]:
    defaults = Config().model_dump(mode="json", by_alias=True)[stage]
    own = config.get(stage, {})
    return _changed(own, defaults) if isinstance(own, dict) else {}


def _find(workspace: Workspace, stage: Stage, files: set[str], digests: dict[str, str]) -> StageFinding:
    try:
        manifest: Manifest | None = workspace.manifest(stage)
    except UserError:
        return StageFinding(stage=stage, state="damaged")
    if manifest is None:
        begun = f"manifests/{stage}.started" in files
        return StageFinding(stage=stage, state="unfinished" if begun else "absent")
    digests[stage] = manifest.digest
    finding = StageFinding(
        stage=stage,
        state="done",
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
    if any(digests.get(name) != digest for name, digest in manifest.inputs.items()):
        return finding.model_copy(update={"state": "outdated"})
    return finding


def find_stages(workspace: Workspace, files: set[str]) -> list[StageFinding]:
    """Return the state of every stage, in the order of the pipeline.

    Args:
        workspace: is only read.
        files: all of its files, by path within it.
    """
    digests: dict[str, str] = {}
    return [_find(workspace, stage, files, digests) for stage in typing.get_args(Stage)]
