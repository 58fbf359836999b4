"""What the folders of a workspace hold; of Parquet files, no more is read than is asked for."""

import posixpath
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from causalneg.errors import UserError
from causalneg.inspection.findings import FolderFinding
from causalneg.workspace import Workspace

# Folder: column with the reason of a row that was rejected or that failed.
REASONS = {
    "rejected": "kind",
    "mined": "rejected_by",
    "relabelled": "rejected_by",
    "relabel_failures": "kind",
    "negatives": "rejected_by",
    "failures": "kind",
}

_BATCH_ROWS = 50_000
_LONGEST = 160  # characters of a value that is shown
_DIGITS = 4  # of a number that is shown
_MOST = 3  # entries of a list that are shown


@contextmanager
def open_parquet(workspace: Workspace, name: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file.

    Raises:
        UserError: it is damaged.
    """
    try:
        with workspace.open_parquet(name) as file:
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{workspace.path(name)} is damaged; run the stage that made it again.") from error


def read_columns(workspace: Workspace, folder: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream some columns of a folder's Parquet files.

    Raises:
        UserError: a file is damaged or lacks a column.
    """
    for name in workspace.list_files([folder], ".parquet"):
        with open_parquet(workspace, name) as parquet:
            if missing := sorted(set(columns) - set(parquet.schema_arrow.names)):
                raise UserError(f"{workspace.path(name)} has no column {missing[0]!r}; run its stage again.")
            yield from parquet.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns))


def count_rows(workspace: Workspace, folder: str) -> dict[str, int]:
    """Return the rows of each Parquet file of a folder."""
    rows = {}
    for name in workspace.list_files([folder], ".parquet"):
        with open_parquet(workspace, name) as parquet:
            rows[name] = int(parquet.metadata.num_rows)
    return rows


def _short(value: Any) -> Any:  # noqa: ANN401 - any value of a row
    """Cut a value to what can be taken in at a glance."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {name: _short(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_short(entry) for entry in value[:_MOST]] + (["…"] if len(value) > _MOST else [])
    return value


def _row(parquet: pq.ParquetFile, row: int) -> dict[str, Any]:
    for group in range(parquet.num_row_groups):
        size = parquet.metadata.row_group(group).num_rows
        if row < size:
            (found,) = parquet.read_row_group(group).slice(row, 1).to_pylist(maps_as_pydicts="strict")
            return {name: _short(value) for name, value in found.items()}
        row -= size
    raise IndexError(row)


def draw(workspace: Workspace, folder: str, rows: dict[str, int], size: int, seed: int) -> list[dict[str, Any]]:
    """Return some rows of a folder, drawn by seed, in their order.

    Args:
        workspace: is only read.
        folder: its name, on which the draw depends.
        rows: of each file.
        size: how many, if there are as many.
        seed: of the draw.
    """
    total = sum(rows.values())
    left = sorted(random.Random(f"{folder} {seed}").sample(range(total), min(size, total)))  # noqa: S311 - no secret
    drawn: list[dict[str, Any]] = []
    start = 0
    for name, count in rows.items():
        here = [at - start for at in left if start <= at < start + count]
        if here:
            with open_parquet(workspace, name) as parquet:
                drawn += [_row(parquet, at) for at in here]
        start += count
    return drawn


def count_reasons(workspace: Workspace, folder: str) -> dict[str, int]:
    """Count the rows of a folder that were rejected or failed by reason, the most frequent first."""
    counts: Counter[str] = Counter()
    for batch in read_columns(workspace, folder, [REASONS[folder]]):
        for entry in pc.value_counts(batch.column(0).drop_null()):
            counts[entry["values"].as_py()] += entry["counts"].as_py()
    return dict(counts.most_common())


def list_sizes(workspace: Workspace) -> dict[str, int]:
    """Return the size of every file, by path within the workspace.

    Raises:
        UserError: there is no such workspace, or nothing is in it.
    """
    if not workspace.exists(""):
        raise UserError(f"There is no workspace {workspace.root_url}; name one, or make it with `causalneg import`.")
    found = workspace.fs.find(workspace.root, detail=True)
    sizes = {posixpath.relpath(str(path), workspace.root): int(info["size"] or 0) for path, info in found.items()}
    if not any(name.startswith(("manifests/", "building/")) for name in sizes):
        raise UserError(
            f"{workspace.root_url} holds nothing of a run: no stage was begun there; start with `causalneg import`."
        )
    return dict(sorted(sizes.items()))


def find_folders(workspace: Workspace, sizes: dict[str, int], rows: int, seed: int) -> list[FolderFinding]:
    """Return what each folder holds.

    Args:
        workspace: is only read.
        sizes: of its files.
        rows: how many rows to show of each.
        seed: of the draw.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for name in sizes:
        names[name.split("/")[0] if "/" in name else "."].append(name)
    findings = []
    for folder, files in names.items():
        counted = count_rows(workspace, folder) if any(f.endswith(".parquet") for f in files) else None
        findings.append(
            FolderFinding(
                folder=folder,
                files=len(files),
                bytes=sum(sizes[name] for name in files),
                rows=None if counted is None else sum(counted.values()),
                reasons=count_reasons(workspace, folder) if counted and folder in REASONS else None,
                sample=draw(workspace, folder, counted, rows, seed) if counted else [],
            )
        )
    return findings
