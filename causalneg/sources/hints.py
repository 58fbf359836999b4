"""Says what lies in a folder or zip that does not hold the data set where it was looked for."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from causalneg.sources.folder import files_below
from causalneg.sources.opening import plain_name, plain_suffix
from causalneg.sources.tables import SUFFIXES

_NAMED = 8  # files that are listed
# A file by which the folder of a data set is known.
_LANDMARKS = ("corpus.jsonl", "corpus.ndjson", "dataset_dict.json", "dataset_info.json")


def listed(names: Sequence[str], most: int = _NAMED) -> str:
    """Return names as a list in words: the first of them, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _deeper(path: Path, files: Sequence[str]) -> str:
    """Return the folder of a data set below a folder, or nothing."""
    for name in files:
        inside = PurePosixPath(name)
        if plain_name(inside.name) in _LANDMARKS and len(inside.parts) > 1:
            return str(path / inside.parent)
        if len(inside.parts) > 2 and inside.parent.name == "qa" and (path / inside.parent.parent / "evidence").is_dir():
            return str(path / inside.parent.parent)
    return ""


def what_is_there(path: Path, files: Sequence[str] | None = None) -> str:
    """Return what lies there, and what to give as the source, as a sentence.

    Args:
        path: the folder or zip.
        files: the files in the zip; those of the folder when unset.
    """
    packed = files is not None
    names = list(files_below(path)) if files is None else list(files)
    if not packed and (folder := _deeper(path, names)):
        return f"A data set is in {folder}; give --source {folder}."
    for suffixes, what in (((".zip",), "a zip"), (SUFFIXES, "a file of rows")):
        found = [name for name in names if plain_suffix(name) in suffixes]
        if found and packed:
            return f"It holds {listed(found)}; unpack it and give {what} of these as --source."
        if found:
            first = path / found[0]
            return f"There is {listed(found)}; give {what} itself, as --source {first}."
    return f"There is {listed(names)}." if names else "Nothing is in it."
