"""Where generation keeps its work: batches of pairs and what each step made of them, so that nothing is paid twice."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from causalneg.errors import UserError
from causalneg.generation.ledger import Ledger
from causalneg.generation.rows import Pair, Procedure, Step
from causalneg.records import Failure, Outcome
from causalneg.stages import revised
from causalneg.workspace import Workspace

STEPS = ("analyses", "candidates", "scored")
PAIRS, OUTCOMES = "pairs", "outcomes"
REFUSED = "refused"  # kind of the failures by which an engine says that a request is not as it takes them


class Drafts(Ledger):
    """The drafts that belong to one setting of everything that determines them.

    A batch is a file of pairs, `pairs/<batch>.parquet`. Each step writes what it made of the batch under the same name
    in a folder of its own; `outcomes/<batch>.parquet` comes last and says that the pairs it names are done.

    Args:
        workspace: holds them.
        key: hash of what determines them.
    """

    def __init__(self, workspace: Workspace, key: str) -> None:
        super().__init__(workspace, f"drafts/{key}")
        self.key = key

    def _folder(self, name: str) -> str:
        """Return where the pairs, a step or the outcomes lie: those of another revision lie elsewhere."""
        folder = f"{self.folder}/{name}"
        if name == PAIRS:  # their revision is in the key
            return folder
        return revised(folder, f"generate/{STEPS[-1] if name == OUTCOMES else name}")

    def _path(self, name: str, batch: str) -> str:
        return f"{self._folder(name)}/{batch}.parquet"

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
        return self.workspace.write_rows(self._folder(PAIRS), f"{number:06d}", Pair, pairs)

    def total(self) -> int | None:
        """Return how many pairs there are; None before they are written."""
        name = f"{self.folder}/pairs.json"
        return int(json.loads(self.workspace.read_bytes(name))["pairs"]) if self.workspace.exists(name) else None

    def batches(self) -> list[str]:
        """Return the names of the batches, in the order of the pairs."""
        names = self.workspace.list_files([self._folder(PAIRS)], ".parquet")
        return [name.rsplit("/", 1)[1].removesuffix(".parquet") for name in names]

    def pairs(self, batch: str) -> list[Pair]:
        """Return the pairs of a batch."""
        return self.workspace.read_file(self._path(PAIRS, batch), Pair)

    def read_step(self, step: str, batch: str) -> dict[str, Step]:
        """Return what a step has made of a batch so far, by pair id."""
        path = self._path(step, batch)
        rows = self.workspace.read_file(path, Step) if self.workspace.exists(path) else []
        return {row.pair_id: row for row in rows}

    def write_step(self, step: str, batch: str, rows: Iterable[Step]) -> None:
        """Keep what a step has made of a batch so far, in the place of what was kept before."""
        self.workspace.write_rows(self._folder(step), batch, Step, rows)

    def read_outcomes(self, batch: str) -> dict[str, Outcome]:
        """Return what became of the pairs of a batch that are done, by pair id."""
        path = self._path(OUTCOMES, batch)
        rows = self.workspace.read_file(path, Outcome) if self.workspace.exists(path) else []
        return {row.input_id: row for row in rows}

    def write_outcomes(self, batch: str, rows: Iterable[Outcome]) -> None:
        """Mark the pairs of a batch as done."""
        self.workspace.write_rows(self._folder(OUTCOMES), batch, Outcome, rows)

    def procedure(self) -> Procedure | None:
        """Return how the negatives are made and scored; None before the model was checked."""
        name = f"{self.folder}/procedure.json"
        exists = self.workspace.exists(name)
        return Procedure.model_validate_json(self.workspace.read_bytes(name)) if exists else None

    def write_procedure(self, procedure: Procedure) -> None:
        """Say how the negatives are made and scored."""
        self.workspace.write_bytes(f"{self.folder}/procedure.json", procedure.model_dump_json().encode())

    def reopen(self, batch: str, rows: Iterable[Step]) -> None:
        """Keep what the last step made of a batch, and have done again of it what is marked to be."""
        kept = list(rows)
        again = {row.pair_id for row in kept if row.again}
        if again:  # the outcomes first: see `forget_failures`
            self.write_outcomes(batch, _without(self.read_outcomes(batch), again))
        self.write_step(STEPS[-1], batch, kept)

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
        return list(self.workspace.read_table(self._path(PAIRS, batch), ["id"]).column("id").to_pylist())

    def steps(self, step: str) -> Iterator[tuple[str, list[Step]]]:
        """Stream what a step made, a batch at a time with its name, in the order of the pairs."""
        for batch in self.batches():
            yield batch, list(self.read_step(step, batch).values())

    def refusal(self) -> str | None:
        """Return the words of a refusal where every pair that was done has lost something by one, or all; else None."""
        words = None
        for _, steps in self.steps(STEPS[-1]):
            for step in steps:
                failures = [step.failure] if step.failure else step.lost
                said = next((f.message for f in failures if f.kind == REFUSED), None)
                if said is None:
                    return None
                words = words or said
        return words

    def forget_failures(self) -> int:
        """Take back the failures that may be retried, so that what was lost is done anew, and nothing else.

        Returns:
            Number of pairs that have something to do.
        """
        taken = 0
        for batch in self.batches():
            again = {p: row for p, row in self.read_step(STEPS[-1], batch).items() if _retried(row)}
            if not again:
                continue
            taken += len(again)
            # The outcomes first: what is cut off here leaves the batch unfinished, and never done without its rows.
            self.write_outcomes(batch, _without(self.read_outcomes(batch), set(again)))
            for step in reversed(STEPS):
                rows = self.read_step(step, batch)
                kept = {p: row for p, row in rows.items() if p not in again or not row.failure}
                self.write_step(step, batch, [_opened(row) if p in again else row for p, row in kept.items()])
        return taken

    # Precision

    def precisions(self) -> list[str]:
        """Return in which precisions engines have computed the drafts; several where machines of several kinds did."""
        return [name.rsplit("/", 1)[1] for name in self.workspace.list_files([f"{self.folder}/precision"])]

    def note_precision(self, precision: str) -> None:
        """Note in which precision an engine computes. It is no part of the key: nothing is paid again for it."""
        self.workspace.write_bytes(f"{self.folder}/precision/{precision}", b"")


def stop_where_all_refused(drafts: Drafts) -> None:
    """Stop where every pair was refused: that is as a wrong key is, and no pair's fault.

    What was refused is taken back, so that the same command tries it again.

    Raises:
        UserError: they were.
    """
    if words := drafts.refusal():
        drafts.forget_failures()
        raise UserError(
            f"Every pair was refused: {words}. Mend that, in the engine's settings or at the endpoint, and run the "
            "same command again."
        )


def may_retry(failure: Failure) -> bool:
    """Whether a failure is one that another try may mend."""
    return failure.retryable or failure.kind == REFUSED  # an endpoint that refuses may be set otherwise by now


def _retried(made: Step) -> list[Failure]:
    """Return the failures of a step that are to be retried; of a part they must say which, as they once did not."""
    if made.failure:
        return [made.failure] if may_retry(made.failure) else []
    return [f for f in made.lost if f.part and may_retry(f)]


def _opened(made: Step) -> Step:
    """Return what a step made, with the parts that are to be retried marked as such."""
    again = [] if made.failure else _retried(made)
    lost = [f for f in made.lost if f not in again]
    return made.model_copy(update={"lost": lost, "again": [*made.again, *(f.part for f in again)]})


def _without(rows: Mapping[str, Outcome], ids: set[str]) -> list[Outcome]:
    return [row for pair_id, row in rows.items() if pair_id not in ids]
