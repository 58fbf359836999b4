"""Picks the reader of a data set."""

from pathlib import Path

from causalneg.config import ImportSettings, nearest
from causalneg.errors import UserError
from causalneg.sources.beir import read_beir
from causalneg.sources.irds import PREFIX, read_irds
from causalneg.sources.items import Dataset
from causalneg.sources.opening import plain_suffix
from causalneg.sources.pairs import read_pairs
from causalneg.sources.saved import is_saved, read_saved
from causalneg.sources.tables import SUFFIXES
from causalneg.sources.trec import read_trec
from causalneg.sources.triviaqa import is_triviaqa, read_triviaqa

SAMPLE = "embedded:sample"


def _check_unmapped(settings: ImportSettings) -> None:
    if settings.fields or settings.topics or settings.qrels:
        raise UserError(
            f"import.fields, import.topics and import.qrels are for your own files, not for {settings.source}."
        )


def open_dataset(settings: ImportSettings) -> Dataset:
    """Return the data set that the settings name, ready to be read.

    Raises:
        UserError: there is nothing, or nothing that can be read.
    """
    source, names = settings.source, settings.fields
    if source == SAMPLE or source.startswith(PREFIX):
        _check_unmapped(settings)
        return read_irds(source) if source != SAMPLE else read_beir(Path(__file__).parent / "sample", {})
    path = Path(source).expanduser()
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        usual = (
            f"; give --source a BEIR folder or zip, a folder of save_to_disk, a file of pairs ({', '.join(SUFFIXES)}) "
            f"or {PREFIX}NAME."
        )
        raise UserError(f"The data {source} does not exist{nearest(path.name, beside) or usual}")
    if is_triviaqa(path):
        _check_unmapped(settings)
        return read_triviaqa(path)
    is_table = plain_suffix(path) in SUFFIXES and not path.is_dir()
    if (settings.topics or settings.qrels) and is_table:
        return read_trec(path, names, settings.topics, settings.qrels)
    if settings.topics or settings.qrels:
        raise UserError(f"import.topics and import.qrels go with a corpus file ({', '.join(SUFFIXES)}), not {source}.")
    if path.is_dir() and is_saved(path):
        return read_saved(path, names)
    if path.is_dir() or path.suffix.lower() == ".zip":
        return read_beir(path, names)
    if is_table:
        return read_pairs(path, names)
    raise UserError(
        f"{source} is no BEIR folder or .zip, no folder of save_to_disk and none of {', '.join(SUFFIXES)} "
        "(plain, .gz or .zst); unpack it or convert it to one of them."
    )
