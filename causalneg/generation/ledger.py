"""What a stage that asks an LLM keeps beside its work: its time, and what a worker that died was at."""

import json

from pydantic import BaseModel, ValidationError

from causalneg.workspace import Workspace


class Running(BaseModel):
    """The rows that a worker is at, and how often a worker or an engine died while it was at each.

    Attributes:
        now: ids of the rows.
        deaths: deaths by row id.
    """

    now: list[str] = []
    deaths: dict[str, int] = {}

    def after_death(self) -> "Running":
        """Return the same with a death counted for each of the rows, and none of them at work."""
        deaths = self.deaths | {row_id: self.deaths.get(row_id, 0) + 1 for row_id in self.now}
        return Running(deaths=deaths)


class Ledger:
    """Time and deaths of the work in a folder.

    Args:
        workspace: holds the folder.
        folder: of all that belongs to one setting of what determines the work.
    """

    def __init__(self, workspace: Workspace, folder: str) -> None:
        self.workspace, self.folder = workspace, folder

    def seconds(self) -> float:
        """Return how long all runs together have worked; of a killed run nothing is known."""
        name = f"{self.folder}/seconds.json"
        return float(json.loads(self.workspace.read_bytes(name))) if self.workspace.exists(name) else 0.0

    def add_seconds(self, seconds: float) -> None:
        """Count the time of a run."""
        self.workspace.write_bytes(f"{self.folder}/seconds.json", json.dumps(self.seconds() + seconds).encode())

    def running(self, batch: str) -> Running:
        """Return what a worker that died was at in a batch."""
        name = f"{self.folder}/running/{batch}.json"
        if not self.workspace.exists(name):
            return Running()
        try:
            return Running.model_validate_json(self.workspace.read_bytes(name))
        except ValidationError:  # half written to an object store by the worker that died
            return Running()

    def write_running(self, batch: str, running: Running) -> None:
        """Say which rows of a batch a worker is at."""
        self.workspace.write_bytes(f"{self.folder}/running/{batch}.json", running.model_dump_json().encode())

    def stop_running(self, batch: str | None = None) -> None:
        """Say that no worker is at a batch; at none of all without a name: a killed driver is no row's fault."""
        self.workspace.remove(f"{self.folder}/running" + (f"/{batch}.json" if batch else ""))
