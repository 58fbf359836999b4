"""The stages: what each one owns, and the revisions of all that is kept.

A revision is raised by hand, in the very change after which the same settings and inputs give another result, or a
setting has another default. What was made by an earlier revision is made anew, and so is what is made of it. The
package's version plays no part: a release that raises no revision redoes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from causalneg.config import Config

Stage = Literal["import", "mine", "relabel", "generate", "train", "index", "evaluate"]

REVISIONS: dict[str, int] = {
    "import": 1,
    "mine": 1,
    "mine/candidates": 1,  # what is found by the searches, before the filters
    "mine/bm25": 1,
    "mine/signatures": 1,
    "relabel": 1,
    "relabel/judged": 1,  # what the LLM is asked, and how it is read: raised, every call is paid again
    "generate": 1,
    "generate/pairs": 1,  # what generation is given: raised, every call of the LLM is paid again
    "generate/analyses": 1,
    "generate/candidates": 1,
    "generate/scored": 1,
    "embeddings": 1,
    "train": 1,
    "index": 1,
    "evaluate": 1,
}
_MADE_OF: dict[str, tuple[str, ...]] = {
    "mine": ("mine/candidates", "mine/signatures"),
    "mine/candidates": ("mine/bm25", "embeddings"),
    "relabel": ("relabel/judged",),
    "generate": ("generate/scored",),
    "generate/scored": ("generate/candidates",),
    "generate/candidates": ("generate/analyses",),
    "generate/analyses": ("generate/pairs",),
    "index": ("embeddings",),
    "evaluate": ("embeddings",),
}


@dataclass(frozen=True)
class Folders:
    """The folders that a stage alone writes.

    Attributes:
        results: what it makes.
        read: what of it later stages read, folders or files; a change anywhere else makes no later stage outdated.
        work: what it needs until it is done.
    """

    results: tuple[str, ...]
    read: tuple[str, ...]
    work: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Results and work."""
        return self.results + self.work


# The versions of an index never change; they are written in their place.
FOLDERS: dict[Stage, Folders] = {
    "import": Folders(("corpus", "queries", "qrels", "rejected"), ("corpus", "queries", "qrels"), ("staging",)),
    "mine": Folders(("mined",), ("mined",)),
    "relabel": Folders(("relabelled", "relabel_failures"), ("relabelled",)),
    "generate": Folders(("analyses", "answering", "negatives", "failures", "outcomes"), ("answering", "negatives")),
    "train": Folders(("model", "training"), ("model", "training/held_out.parquet"), ("checkpoints",)),
    "index": Folders((), ()),
    "evaluate": Folders(("runs", "report"), ()),
}
# Files that say how a result was made, with times and versions, and are no part of it.
_DESCRIPTIONS = {"README.md", "report.json", "report.html", "causalneg.json", "causalneg.yaml"}


def revision(name: str) -> int:
    """Return the revision of a result: its own changes, and those of what it is made of."""
    return REVISIONS[name] + sum(revision(part) - 1 for part in _MADE_OF.get(name, ()))


def revised(folder: str, name: str) -> str:
    """Return the folder that holds what is kept of the present revision of `name`."""
    number = revision(name)
    return folder if number == 1 else f"{folder}-r{number}"


def is_read_later(stage: Stage, file: str) -> bool:
    """Whether later stages depend on a file of a stage's result."""
    parts = file.split("/")
    read = any("/".join(parts[:depth]) in FOLDERS[stage].read for depth in range(1, len(parts) + 1))
    return read and parts[-1] not in _DESCRIPTIONS


@cache
def _defaults() -> dict[str, Any]:
    defaults = Config().model_dump(mode="json", by_alias=True)
    return {**defaults, "select": defaults["generate"]}


def changed(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings that differ from their defaults, by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict) and default:
            found |= changed(value, default, f"{prefix}{name}.")
        elif value != default:
            found[prefix + name] = value
    return found


def determining(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result depends on, by dotted name: a setting counts once it is not at its default.

    So a setting that a later version adds changes nothing where it is not used.

    Args:
        config: settings by group, as JSON can hold them, and whatever else determines the result.
    """
    return changed(json.loads(json.dumps(config, default=str)), _defaults())
