"""Reads pairs from a folder that Hugging Face `datasets` wrote with save_to_disk."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalneg.errors import UserError
from causalneg.sources.fields import Fields
from causalneg.sources.items import PAIRS, Dataset, SourceRow
from causalneg.sources.opening import digest_of, reading
from causalneg.sources.pairs import NAMES, pair_of, wanted_columns
from causalneg.sources.tables import Record, arrow_rows, as_rows

if TYPE_CHECKING:
    import datasets

_BATCH = 1000
_MARKS = ("dataset_dict.json", "dataset_info.json")


def is_saved(path: Path) -> bool:
    """Whether a folder was written by save_to_disk."""
    return any((path / mark).is_file() for mark in _MARKS)


def _load(path: Path) -> "dict[str | None, datasets.Dataset]":
    """Return the data sets of a folder by split; None where it names no splits."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever the library makes of a damaged folder, it is the folder's fault
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no whole folder of save_to_disk ({message}); save it anew.") from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {None: found}


def _records(table: "datasets.Dataset", columns: list[str]) -> Iterator[Record]:
    first = 1
    for batch in table.select_columns(columns).with_format("arrow").iter(batch_size=_BATCH):
        for part in batch.to_batches():
            part.validate(full=True)  # the file is mapped into memory as it is: damage could lead anywhere
            yield from arrow_rows(part, first)
            first += part.num_rows


def _rows(path: Path, tables: "dict[str | None, datasets.Dataset]", fields: Fields) -> Iterator[SourceRow]:
    wanted = wanted_columns(fields)
    for split, table in tables.items():
        where = str(path / split) if split else str(path)
        fields.check(table.column_names, where)
        columns = [name for name in table.column_names if wanted(name)]
        with reading(where):
            records = _records(table, columns) if columns else iter(())
            yield from as_rows(records, PAIRS, where, partial(pair_of, fields=fields, split=split))


def read_saved(path: Path, names: Mapping[str, Any]) -> Dataset:
    """Read a folder of save_to_disk; the splits of a DatasetDict stay what they are.

    Raises:
        UserError: the folder is damaged, or the user's names of fields are wrong.
    """
    fields, tables = Fields(names, NAMES), _load(path)
    files = sorted(p for p in path.rglob("*") if p.suffix in (".arrow", ".json"))
    return Dataset(
        digest=partial(digest_of, files),
        rows=partial(_rows, path, tables, fields),
        total=sum(len(table) for table in tables.values()),
    )
