"""Reads pairs from a folder that Hugging Face `datasets` wrote with save_to_disk."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalneg.errors import UserError
from causalneg.sources.chat import COLUMNS
from causalneg.sources.fields import Fields, unused_columns
from causalneg.sources.folder import files_below
from causalneg.sources.items import PAIRS, Dataset, SourceRow
from causalneg.sources.names import PAIR_NAMES
from causalneg.sources.opening import digest_of, reading
from causalneg.sources.pairs import pair_of
from causalneg.sources.tables import Record, arrow_rows, as_rows

if TYPE_CHECKING:
    import datasets

_BATCH = 1000
_READ = (".arrow", ".json")
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
    for split, table in tables.items():
        where = str(path / split) if split else str(path)
        fields.check(table.column_names, where)
        columns = fields.wanted(table.column_names, COLUMNS)
        with reading(where):
            records = _records(table, columns) if columns else iter(())
            yield from as_rows(records, PAIRS, where, partial(pair_of, fields=fields, split=split))


def read_saved(path: Path, names: Mapping[str, Any]) -> Dataset:
    """Read a folder of save_to_disk; the splits of a DatasetDict stay what they are.

    Raises:
        UserError: the folder is damaged, or the user's names of fields are wrong.
    """
    fields, tables = Fields(names, PAIR_NAMES), _load(path)
    there = list(files_below(path))
    files = sorted(path / name for name in there if name.endswith(_READ))
    return Dataset(
        digest=partial(digest_of, files),
        rows=partial(_rows, path, tables, fields),
        total=sum(len(table) for table in tables.values()),
        unread=[name for name in there if not name.endswith(_READ)],
        unused=lambda: unused_columns({str(path): fields}),
    )
