"""Where generation keeps its work: batches of pairs and what each step made of them, so that nothing is paid twice."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel, ValidationError

from causalneg.generation.rows import Pair, Step
from causalneg.records import Outcome
from causalneg.workspace import Workspace

STEPS = ("analyses", "candidates", "scored")


class Running(BaseModel):
    """The pairs that a worker is at, and how often a worker or an engine died while it was at each.

    Attributes:
        now: ids of the pairs.
        deaths: deaths by pair id.
    """

    now: list[str] = []
    deaths: dict[str, int] = {}

    def after_death(self) -> "Running":
        """Return the same with a death counted for each of the pairs, and none of them at work."""
        deaths = self.deaths | {pair_id: self.deaths.get(pair_id, 0) + 1 for pair_id in self.now}
        return Running(deaths=deaths)


class Drafts:
    """The drafts that belong to one setting of everything that determines them.

    A batch is a file of pairs, `pairs/<batch>.parquet`. Each step writes what it made of the batch under the same name
    in a folder of its own; `outcomes/<batch>.parquet` comes last and says that the pairs it names are done.

    Args:
        workspace: holds them.
        key: hash of what determines them.
    """

    def __init__(self, workspace: Workspace, key: str) -> None:
        self.workspace, self.key = workspace, key
        self.folder = f"drafts/{key}"

    def _path(self, folder: str, batch: str) -> str:
        return f"{self.folder}/{folder}/{batch}.parquet"

    def write_pairs(self, pairs: Iterable[Pair], size: int) -> None:
        """Write pairs as batches in their order; their count comes last and makes them valid."""
        total, number, batch = 0, 0, list[Pair]()
        for pair in pairs:
            batch.append(pair)
            if len(batch) == size:
                total, number, batch = total + self._write_batch(number, batch), number + 1, []
        if batch:
            total += self._write_batch(number, batch)
        self.workspace.write_bytes(f"{self.folder}/pairs.json", json.dumps({"pairs": total}).encode())

    def _write_batch(self, number: int, pairs: Sequence[Pair]) -> int:
        return self.workspace.write_rows(f"{self.folder}/pairs", f"{number:06d}", Pair, pairs)

    def total(self) -> int | None:
        """Return how many pairs there are; None before they are written."""
        name = f"{self.folder}/pairs.json"
        return int(json.loads(self.workspace.read_bytes(name))["pairs"]) if self.workspace.exists(name) else None

    def batches(self) -> list[str]:
        """Return the names of the batches, in the order of the pairs."""
        names = self.workspace.list_files([f"{self.folder}/pairs"], ".parquet")
        return [name.rsplit("/", 1)[1].removesuffix(".parquet") for name in names]

    def pairs(self, batch: str) -> list[Pair]:
        """Return the pairs of a batch."""
        return self.workspace.read_file(self._path("pairs", batch), Pair)

    def read_step(self, step: str, batch: str) -> dict[str, Step]:
        """Return what a step has made of a batch so far, by pair id."""
        path = self._path(step, batch)
        rows = self.workspace.read_file(path, Step) if self.workspace.exists(path) else []
        return {row.pair_id: row for row in rows}

    def write_step(self, step: str, batch: str, rows: Iterable[Step]) -> None:
        """Keep what a step has made of a batch so far, in the place of what was kept before."""
        self.workspace.write_rows(f"{self.folder}/{step}", batch, Step, rows)

    def read_outcomes(self, batch: str) -> dict[str, Outcome]:
        """Return what became of the pairs of a batch that are done, by pair id."""
        path = self._path("outcomes", batch)
        rows = self.workspace.read_file(path, Outcome) if self.workspace.exists(path) else []
        return {row.input_id: row for row in rows}

    def write_outcomes(self, batch: str, rows: Iterable[Outcome]) -> None:
        """Mark the pairs of a batch as done."""
        self.workspace.write_rows(f"{self.folder}/outcomes", batch, Outcome, rows)

    def unfinished(self) -> tuple[list[str], list[Outcome]]:
        """Return the batches that have pairs to do, and the outcomes of the pairs that are done."""
        left, done = [], list[Outcome]()
        for batch in self.batches():
            outcomes = self.read_outcomes(batch)
            done += outcomes.values()
            if any(pair_id not in outcomes for pair_id in self._ids(batch)):
                left.append(batch)
        return left, done

    def _ids(self, batch: str) -> list[str]:
        return list(self.workspace.read_table(self._path("pairs", batch), ["id"]).column("id").to_pylist())

    def steps(self, step: str) -> Iterator[tuple[str, list[Step]]]:
        """Stream what a step made, a batch at a time with its name, in the order of the pairs."""
        for batch in self.batches():
            yield batch, list(self.read_step(step, batch).values())

    def forget_failures(self) -> int:
        """Take back the failures that may be retried, so that their pairs are done anew; return how many."""
        taken = 0
        for batch in self.batches():
            last = self.read_step(STEPS[-1], batch)
            failed = {p for p, row in last.items() if row.failure and row.failure.retryable}
            if not failed:
                continue
            taken += len(failed)
            # The outcomes first: what is cut off here leaves the batch unfinished, and never done without its rows.
            self.write_outcomes(batch, _without(self.read_outcomes(batch), failed))
            for step in reversed(STEPS):
                kept = {p: row for p, row in self.read_step(step, batch).items() if p not in failed or not row.failure}
                self.write_step(step, batch, kept.values())
        return taken

    # Time

    def seconds(self) -> float:
        """Return how long all runs together have worked on the drafts; of a killed run nothing is known."""
        name = f"{self.folder}/seconds.json"
        return float(json.loads(self.workspace.read_bytes(name))) if self.workspace.exists(name) else 0.0

    def add_seconds(self, seconds: float) -> None:
        """Count the time of a run."""
        self.workspace.write_bytes(f"{self.folder}/seconds.json", json.dumps(self.seconds() + seconds).encode())

    # Precision

    def precisions(self) -> list[str]:
        """Return in which precisions engines have computed the drafts; several where machines of several kinds did."""
        return [name.rsplit("/", 1)[1] for name in self.workspace.list_files([f"{self.folder}/precision"])]

    def note_precision(self, precision: str) -> None:
        """Note in which precision an engine computes. It is no part of the key: nothing is paid again for it."""
        self.workspace.write_bytes(f"{self.folder}/precision/{precision}", b"")

    # Deaths

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
        """Say which pairs of a batch a worker is at."""
        self.workspace.write_bytes(f"{self.folder}/running/{batch}.json", running.model_dump_json().encode())

    def stop_running(self, batch: str | None = None) -> None:
        """Say that no worker is at a batch; at none of all without a name: a killed driver is no pair's fault."""
        self.workspace.remove(f"{self.folder}/running" + (f"/{batch}.json" if batch else ""))


def _without(rows: Mapping[str, Outcome], ids: set[str]) -> list[Outcome]:
    return [row for pair_id, row in rows.items() if pair_id not in ids]
