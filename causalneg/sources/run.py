"""The import stage: reads a data set and writes it to the workspace in one form."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from causalneg.config import Config
from causalneg.console import Meter, Reporter
from causalneg.errors import UserError
from causalneg.models import cache_dir
from causalneg.records import content_id
from causalneg.sources.items import QUERIES, Dataset
from causalneg.sources.registry import open_dataset
from causalneg.sources.settle import query_counts, settle, write_settled
from causalneg.sources.staging import Staging
from causalneg.sources.summary import show
from causalneg.workspace import Counts, Manifest, StageRun, Workspace

_MB = 1 << 20
_FILES_NAMED = 100  # of those not read, in the manifest
_SHOWN_EVERY = 1000  # rows between two steps of the progress


@contextmanager
def _staging(stage: StageRun, config: Config) -> Iterator[Staging]:
    """Open the file that holds what is not yet settled; it goes when all is written."""
    workspace = stage.workspace
    folder = workspace.local_folder("staging") if workspace.is_local else cache_dir() / "import"
    path = folder / f"{content_id(workspace.root_url, stage.key)}.sqlite"
    if not stage.resumed:
        _remove(path)
    try:
        with Staging(path, config.import_) as staging:
            for part in staging.parts():
                if not workspace.exists(part):
                    raise UserError(f"{workspace.path(part)} is gone; remove {path}, too, and the import begins anew.")
            yield staging
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UserError(f"Another import is at work on {path}; wait for it or end it.") from error
        raise UserError(f"{path} cannot be written ({error}); is the disk full?") from error
    _remove(path)
    if workspace.is_local:
        workspace.remove("staging")


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class _Progress:
    """Moves the meter to where the reading is, in the data set's unit."""

    def __init__(self, dataset: Dataset, meter: Meter) -> None:
        self._dataset, self._meter, self._shown = dataset, meter, 0

    def show(self, consumed: int) -> None:
        done = self._dataset.done() // _MB if self._dataset.done else min(consumed, self._dataset.total)
        if done > self._shown:
            self._meter.advance(done - self._shown, f"{consumed:,} rows")
            self._shown = done


def _take(dataset: Dataset, staging: Staging, workspace: Workspace, report: Reporter) -> None:
    """Read the data set from where an earlier run left off to its end."""
    total = -(-dataset.total // _MB) if dataset.unit == "MB" else dataset.total
    if staging.consumed:
        report.line(f"import: going on after {staging.consumed:,} rows")
    with report.meter("import", max(1, total), dataset.unit) as meter:
        progress = _Progress(dataset, meter)
        for row in islice(dataset.rows(), staging.consumed, None):
            staging.add(row)
            if staging.due:
                staging.keep(workspace)
            if staging.consumed % _SHOWN_EVERY == 0:
                staging.check_broken(final=False)
                progress.show(staging.consumed)
    staging.keep(workspace)
    staging.check_broken(final=True)


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Read the data set into `corpus`, `queries` and `qrels`, and what is broken into `rejected`.

    Raises:
        UserError: the data is missing, or broken beyond what the settings allow.
    """
    settings = config.import_
    dataset = open_dataset(settings)
    determines = {"import": settings, "seed": config.seed, "content": dataset.digest()}
    stage = workspace.begin("import", determines, inputs=[], say=report.line)
    if stage.done:
        report.line(f"import: already done ({stage.done.details['passages']} passages)")
        return stage.done
    with _staging(stage, config) as staging:
        _take(dataset, staging, stage.workspace, report)
        settle(staging, settings, config.seed)
        write_settled(staging, stage.workspace)
        splits = query_counts(staging.database)
    rows, outcomes = staging.tally, staging.outcomes
    passages = rows["passages"]["accepted"]
    details = {
        "passages": passages,
        "splits": splits,
        "rows": rows,
        "outcomes": outcomes,
        "columns_not_used": dataset.unused(),
        "files_not_read": list(dataset.unread[:_FILES_NAMED]),
    }
    show(report, details)
    queries = rows[QUERIES]
    counts = Counts(
        rows_in=queries["read"],
        accepted=queries["accepted"],
        rejected=queries["read"] - queries["accepted"],
    )
    return stage.finish(counts, details=details)
