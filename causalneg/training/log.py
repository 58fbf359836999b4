"""The training log: one JSON object a line.

    {"step": 40, "epoch": 0.5, "kind": "train", "loss/total": 1.2, "loss/info_nce": 1.1, …}
    {"step": 40, "epoch": 0.5, "kind": "dev", "nDCG@10": 0.41, "diagnostics/mutual_information": 0.02, …}

`step`, `epoch` and `kind` (train or dev) stand in every record; all else are flat numbers, nested names by slash.
"""

import json
import math
import os
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any

from causalneg.errors import UserError
from causalneg.files import sync


def flat(nested: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """Return nested mappings as one, the names joined: `{"loss": {"total": 1}}` as `{"loss/total": 1}`."""
    values: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            values |= {f"{name}{separator}{inner}": v for inner, v in flat(value, separator).items()}
        else:
            values[name] = value
    return values


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a record holds
    """Return a value as JSON can hold it: numbers of NumPy as Python's, and null for what is no finite number."""
    if isinstance(value, Integral):
        return value if isinstance(value, int) else int(value)
    if isinstance(value, Real):
        value = float(value)
        return value if math.isfinite(value) else None
    return value


def _cut_torn(file: IO[bytes]) -> None:
    """Cut off what stands behind the last newline: a line whose writer was killed."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)


class Log:
    """A training log in a file; there need be none yet.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record behind the others, at once; NaN and infinities become null."""
        line = json.dumps({name: _plain(value) for name, value in record.items()}, ensure_ascii=False, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            _cut_torn(file)
            file.write(line.encode() + b"\n")

    def truncate(self, step: int) -> None:
        """Drop the records after a step, and a torn last line: training goes on from a checkpoint of that step."""
        if not self.path.exists():
            return
        kept = [json.dumps(record, ensure_ascii=False) + "\n" for record in self.read() if record["step"] <= step]
        written = self.path.with_name(self.path.name + ".new")
        written.write_text("".join(kept), "utf-8")
        sync(written)
        written.replace(self.path)

    def read(self) -> list[dict[str, Any]]:
        """Return the records in the order written, without a torn last line.

        Raises:
            UserError: another line is no record.
        """
        if not self.path.exists():
            return []
        records = []
        lines = self.path.read_bytes().split(b"\n")[:-1]  # behind the last newline: nothing, or a torn line
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(f"{self.path}, line {number}: this is no JSON; remove the line.") from error
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise UserError(f"{self.path}, line {number}: this is no record with a step; remove the line.")
            records.append(record)
        return records
