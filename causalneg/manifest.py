"""The manifest of a finished stage: what it was made with, what came of it, and by what later stages know it."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, model_validator

from causalneg.records import content_id
from causalneg.stages import Stage, determining, is_read_later, revision


class Counts(BaseModel):
    """Rows of a stage. Every input row is accepted, rejected or failed.

    Raises:
        ValueError: the parts do not add up.
    """

    rows_in: int
    accepted: int
    rejected: int = 0
    failed: int = 0

    @model_validator(mode="after")
    def _adds_up(self) -> "Counts":
        if self.rows_in != self.accepted + self.rejected + self.failed:
            raise ValueError(f"rows do not add up: {self}")
        return self


class FileEntry(BaseModel):
    """A file of a finished stage."""

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a finished stage did. Written last: a stage with a manifest is done.

    Attributes:
        key: hash of what determined the result.
        version: of the package; nothing depends on it.
        revision: of the stage; None where 0.1.0 wrote it.
        inputs: digests of the results that it was made from, by stage.
        known_as: the digest by which what 0.1.0 made knows this result, where it has one.
    """

    stage: Stage
    key: str
    version: str
    revision: int | None = None
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: Counts
    tokens: dict[str, int] = {}
    details: dict[str, Any] = {}
    seconds: float
    finished: str
    files: dict[str, FileEntry]
    known_as: str | None = None

    @property
    def digest(self) -> str:
        """Hash of the files that later stages read, by which they notice a change."""
        return content_id({n: entry.sha256 for n, entry in self.files.items() if is_read_later(self.stage, n)})

    @property
    def former_digest(self) -> str | None:
        """The digest by which what 0.1.0 made knows this result; None where it cannot."""
        if self.revision is not None:
            return self.known_as
        return content_id(self.key, {name: entry.sha256 for name, entry in self.files.items()})

    def is_known_as(self, digest: str) -> bool:
        """Whether a digest that another stage was made from is that of this result."""
        return digest in (self.digest, self.former_digest)

    def difference(self, config: Mapping[str, Any], inputs: "Mapping[str, Manifest]") -> str | None:
        """Return why a run with these settings and inputs would give another result; None where it would not."""
        if (self.revision or 1) != revision(self.stage):
            return "it is made in another way now"
        for name in [*inputs, *self.inputs]:
            if name not in self.inputs or name not in inputs or not inputs[name].is_known_as(self.inputs[name]):
                return f"{name} has another result now"
        then, now = determining(self.config), determining(config)
        names = sorted(n for n in then.keys() | now.keys() if then.get(n) != now.get(n))
        return f"{', '.join(names)} changed" if names else None
