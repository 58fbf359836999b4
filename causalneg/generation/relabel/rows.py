"""The rows that relabel works on and keeps, and where."""

import json
from collections.abc import Iterable, Iterator, Sequence

from causalneg.errors import UserError
from causalneg.generation.drafts import may_retry
from causalneg.generation.ledger import Ledger
from causalneg.generation.rows import Usage
from causalneg.records import Failure, Passage, Query, Record, Relabelled
from causalneg.workspace import Workspace


class Shown(Record):
    """A query with the mined negatives that are judged for it, the best first."""

    id: str
    query: Query
    candidates: list[Passage]


class Judged(Record):
    """What became of one query: a row for each of its candidates, or a failure."""

    query_id: str
    candidates: int
    relabelled: list[Relabelled] = []
    failure: Failure | None = None
    usage: Usage = Usage()


class Drafts(Ledger):
    """The queries and answers that belong to one setting of everything that determines them.

    A batch is a file of queries, `queries/<batch>.parquet`; what became of them lies under the same name in `judged/`.

    Args:
        workspace: holds them.
        key: hash of what determines them.
    """

    def __init__(self, workspace: Workspace, key: str) -> None:
        super().__init__(workspace, f"drafts/{key}")

    def write(self, rows: Iterable[Shown], size: int) -> None:
        """Write queries as batches in their order; their numbers come last and make them valid."""
        self.workspace.remove(f"{self.folder}/queries")
        queries = candidates = number = 0
        batch: list[Shown] = []
        for row in rows:
            batch.append(row)
            queries, candidates = queries + 1, candidates + len(row.candidates)
            if len(batch) == size:
                self._write(number, batch)
                number, batch = number + 1, []
        if batch:
            self._write(number, batch)
        counts = {"queries": queries, "candidates": candidates}
        self.workspace.write_bytes(f"{self.folder}/queries.json", json.dumps(counts).encode())

    def _write(self, number: int, rows: Sequence[Shown]) -> None:
        self.workspace.write_rows(f"{self.folder}/queries", f"{number:06d}", Shown, rows)

    def counts(self) -> dict[str, int] | None:
        """Return how many queries and candidates there are; None before they are written."""
        name = f"{self.folder}/queries.json"
        return dict(json.loads(self.workspace.read_bytes(name))) if self.workspace.exists(name) else None

    def batches(self) -> list[str]:
        """Return the names of the batches, in the order of the queries."""
        names = self.workspace.list_files([f"{self.folder}/queries"], ".parquet")
        return [name.rsplit("/", 1)[1].removesuffix(".parquet") for name in names]

    def queries(self, batch: str) -> list[Shown]:
        """Return the queries of a batch."""
        return self.workspace.read_file(f"{self.folder}/queries/{batch}.parquet", Shown)

    def judged(self, batch: str) -> dict[str, Judged]:
        """Return what became of the queries of a batch so far, by query id."""
        path = f"{self.folder}/judged/{batch}.parquet"
        rows = self.workspace.read_file(path, Judged) if self.workspace.exists(path) else []
        return {row.query_id: row for row in rows}

    def keep(self, batch: str, rows: Iterable[Judged]) -> None:
        """Keep what became of some queries of a batch, in the place of what was kept before."""
        self.workspace.write_rows(f"{self.folder}/judged", batch, Judged, rows)

    def results(self) -> Iterator[tuple[str, list[Judged]]]:
        """Stream what became of the queries, a batch at a time with its name, in their order."""
        for batch in self.batches():
            known = self.judged(batch)
            yield batch, [known[row.id] for row in self.queries(batch) if row.id in known]

    def unfinished(self) -> tuple[list[str], list[Judged]]:
        """Return the batches that have queries to do, and what became of the queries that are done."""
        left, done = [], list[Judged]()
        for batch, rows in self.results():
            done += rows
            if len(rows) < len(self.queries(batch)):
                left.append(batch)
        return left, done

    def forget_failures(self) -> int:
        """Take back the failures that may be retried; return how many queries that are."""
        taken = 0
        for batch in self.batches():
            rows = self.judged(batch)
            kept = [row for row in rows.values() if not (row.failure and _may_retry(row.failure))]
            if len(kept) < len(rows):
                taken += len(rows) - len(kept)
                self.keep(batch, kept)
        return taken


def _may_retry(failure: Failure) -> bool:
    return may_retry(failure) or failure.kind == "too_long"  # an engine may be made longer without another key


def stop_where_all_failed(drafts: Drafts) -> None:
    """Stop where not one query could be judged: that is no query's fault. What may be tried again is taken back.

    Raises:
        UserError: none could.
    """
    _, done = drafts.unfinished()
    failures = [row.failure for row in done if row.failure]
    if failures and len(failures) == len(done):
        drafts.forget_failures()
        raise UserError(f"No query could be judged: {failures[0].message}. Mend that and run the same command again.")
