"""What an index version says about itself, and the checks of its files before any of them is read.

    index/<version>/manifest.json        what the version is, with size and SHA-256 of every other file
                    index-000.faiss      vectors of the first shard, in the order of the corpus
                    passages-000.arrow   its passages, an uncompressed Arrow IPC file in the same order
                    …                    a pair for each further shard, whose rows follow those of the one before
                    bm25/                the BM25 index, if the version has one

A version is never changed.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from causalneg.errors import UserError
from causalneg.files import file_sha256
from causalneg.indexing.kinds import Kind, Parameters
from causalneg.manifest import FileEntry
from causalneg.records import Record

MANIFEST, LEXICAL = "manifest.json", "bm25"


class IndexDamaged(UserError):  # noqa: N818 - says what is so, as its siblings do
    """An index version is not as it was written, or its vectors cannot be searched."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(f"The index {folder} is damaged: {what}; remove that folder and run `causalneg index` again.")


class IndexModel(Record):
    """The encoder that made an index's vectors; `prompts` are its own, by what they are for."""

    name: str
    fingerprint: str
    prompts: dict[str, str] = {}


class Shard(Record):
    """A part of the index."""

    rows: int


class CurvePoint(Record):
    """What one setting of the search reached on the held-out queries.

    Attributes:
        parameters: of the search, as faiss names them.
        recall: share of the exact 10 nearest passages that were found.
        milliseconds: one query in one thread, the median.
        megabytes: the vectors' file, as estimated for all rows.
        build_seconds: to train and fill the index that was measured.
        rows: of the index that was measured; fewer than the version's when kinds were compared on a sample.
    """

    kind: Kind
    parameters: Parameters = {}
    recall: float
    milliseconds: float
    megabytes: float
    build_seconds: float
    rows: int


class Canary(Record):
    """A passage by which a server checks its encoder: the vector of its title and text finds it."""

    text: str
    id: str


class IndexManifest(Record):
    """What an index version is. `seal` is a hash of all other fields: none changes unnoticed.

    Attributes:
        change: number of the last change that the version holds; 0 for none.
        parameters: of the search, as faiss names them.
        recall: share of the exact 10 nearest passages that held-out queries found; None where nothing was measured.
        curve: everything that was measured to choose kind and parameters.
    """

    version: str
    kind: Kind
    metric: Literal["inner_product"] = "inner_product"
    dimension: int
    rows: int
    shards: list[Shard]
    model: IndexModel
    change: int = 0
    lexical: bool = False
    language: str = "english"
    recall: float | None = None
    parameters: Parameters = {}
    curve: list[CurvePoint] = []
    canaries: list[Canary] = []
    files: dict[str, FileEntry]
    created: str
    seal: str = ""

    @property
    def prompts(self) -> dict[str, str]:
        """The model's own prompts, by what they are for: `query`, `document`."""
        return self.model.prompts

    def sealed(self) -> "IndexManifest":
        """Return the manifest with the seal that belongs to it."""
        body = self.model_dump_json(exclude={"seal"})
        return self.model_copy(update={"seal": hashlib.sha256(body.encode()).hexdigest()})

    def written(self) -> bytes:
        """Return the manifest as its file holds it."""
        return self.model_dump_json().encode()


def vectors_file(shard: int) -> str:
    """Return the name of a shard's FAISS index."""
    return f"index-{shard:03}.faiss"


def passages_file(shard: int) -> str:
    """Return the name of a shard's passages."""
    return f"passages-{shard:03}.arrow"


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Return size and SHA-256 of each file of a version but its manifest, by their names in the folder."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    return {p.relative_to(folder).as_posix(): FileEntry(bytes=p.stat().st_size, sha256=file_sha256(p)) for p in paths}


def read_manifest(folder: Path) -> IndexManifest:
    """Read an index version's manifest.

    Raises:
        UserError: there is none.
        IndexDamaged: it was changed, or contradicts itself.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest = IndexManifest.model_validate_json(content)
    except FileNotFoundError as error:
        raise UserError(f"There is no index in {folder} ({MANIFEST} is missing); run `causalneg index`.") from error
    except (OSError, ValidationError) as error:
        raise IndexDamaged(folder, f"{MANIFEST} cannot be read") from error
    if manifest.sealed().written() != content:
        raise IndexDamaged(folder, f"{MANIFEST} is not as it was written")
    if manifest.version != folder.name:
        raise IndexDamaged(folder, f"{MANIFEST} is that of version {manifest.version}")
    numbers = range(len(manifest.shards))
    expected = {name(number) for number in numbers for name in (vectors_file, passages_file)}
    lexical = {name for name in manifest.files if name.startswith(f"{LEXICAL}/")}
    if not expected or set(manifest.files) - lexical != expected or bool(lexical) != manifest.lexical:
        raise IndexDamaged(folder, f"{MANIFEST} does not name the files of its {len(manifest.shards)} shards")
    if min(shard.rows for shard in manifest.shards) < 1 or sum(s.rows for s in manifest.shards) != manifest.rows:
        raise IndexDamaged(folder, f"the shards in {MANIFEST} do not have its {manifest.rows} rows")
    return manifest


def verify_files(folder: Path, manifest: IndexManifest, names: Iterable[str] | None = None) -> None:
    """Make sure that the files are those that the manifest was written for.

    Args:
        folder: the version.
        manifest: what it is.
        names: of the files to look at; all when unset.

    Raises:
        IndexDamaged: one is missing, another, or one too many where the BM25 index lies.
    """
    for name in manifest.files if names is None else names:
        path, entry = folder / name, manifest.files[name]
        if not path.is_file():
            raise IndexDamaged(folder, f"{name} is missing")
        if path.stat().st_size != entry.bytes:
            raise IndexDamaged(folder, f"{name} has {path.stat().st_size} bytes, not {entry.bytes}")
        if file_sha256(path) != entry.sha256:
            raise IndexDamaged(folder, f"{name} does not have the checksum in {MANIFEST}")
    there = {p.relative_to(folder).as_posix() for p in (folder / LEXICAL).rglob("*") if p.is_file()}
    if not there <= set(manifest.files):
        raise IndexDamaged(folder, f"{min(there - set(manifest.files))} is not in {MANIFEST}")
