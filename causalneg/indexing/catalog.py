"""The index versions of a workspace, and which of them answers.

    index/<version>/        a version
          active.json       which one answers, and which did before
          changes.jsonl     the changes to the passages, of all versions
          models/           the trained encoders of the versions, by fingerprint, so that an old one can answer again
          *.lock            held by who changes one of these, or builds a version from another

What stands in `active.json` changes as a whole, so that readers need no lock.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from causalneg.errors import UserError
from causalneg.files import locked, write_whole
from causalneg.indexing.changes import CHANGES, ChangeLog
from causalneg.indexing.manifest import MANIFEST, IndexManifest, read_manifest
from causalneg.records import Record

_POINTER, _LOCK = "active.json", "active.lock"
_NAME = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,99}")


class Pointer(Record):
    """Which version answers; `serial` grows with each change."""

    version: str
    previous: str | None = None
    serial: int = 0


class Catalog:
    """The index versions in a folder; several processes may use and change it.

    Args:
        folder: `<workspace>/index`; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changes = ChangeLog(folder / CHANGES)
        self._pointer = folder / _POINTER

    def versions(self) -> list[IndexManifest]:
        """Return the versions that are whole as far as their manifests tell, the newest first."""
        found = []
        for manifest_file in self.folder.glob(f"*/{MANIFEST}"):
            if _NAME.fullmatch(manifest_file.parent.name):
                try:
                    manifest = read_manifest(manifest_file.parent)
                    found.append((manifest.created, manifest_file.stat().st_mtime_ns, manifest))
                except (UserError, FileNotFoundError):  # damaged, or removed meanwhile: no version to choose
                    continue
        return [manifest for *_, manifest in sorted(found, key=lambda entry: entry[:2], reverse=True)]

    def folder_of(self, version: str) -> Path:
        """Return the folder of a version.

        Raises:
            UserError: there is none of that name.
        """
        if not _NAME.fullmatch(version) or not (self.folder / version / MANIFEST).is_file():
            known = ", ".join(m.version for m in self.versions()) or "none"
            raise UserError(f"There is no index version {version[:100]!r} in {self.folder}; there is {known}.")
        return self.folder / version

    def model_folder(self, fingerprint: str) -> Path:
        """Return where the trained model that made some version is kept; it need not be there."""
        return self.folder / "models" / fingerprint

    def active(self) -> Pointer | None:
        """Return which version answers: the newest, until one was activated; None where there is none.

        Raises:
            UserError: the file that says so is damaged.
        """
        try:
            return Pointer.model_validate_json(self._pointer.read_bytes())
        except FileNotFoundError:
            versions = self.versions()
            return Pointer(version=versions[0].version) if versions else None
        except (OSError, ValidationError) as error:
            raise UserError(
                f"{self._pointer} is damaged; remove it, and the newest version answers, or write "
                '{"version": NAME} with one of '
                f"{', '.join(m.version for m in self.versions()) or 'none'} into it."
            ) from error

    def activate(self, version: str) -> Pointer:
        """Let a version answer from now on.

        Raises:
            UserError: it is not there, or damaged.
        """
        read_manifest(self.folder_of(version))
        with self._changing():
            before = self.active()
            if before is not None and before.version == version and before.serial:
                return before
            left = before.version if before is not None and before.version != version else None
            return self._write(Pointer(version=version, previous=left, serial=before.serial + 1 if before else 1))

    def roll_back(self) -> Pointer:
        """Let the version before answer again; once more, and the later one does.

        Raises:
            UserError: no other one answered before, or it is gone.
        """
        with self._changing():
            now = self.active()
            if now is None or now.previous is None:
                raise UserError(f"No version answered before the one that does; see {self._pointer}.")
            read_manifest(self.folder_of(now.previous))
            return self._write(Pointer(version=now.previous, previous=now.version, serial=now.serial + 1))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the only one to change the pointer, and remove what a killed one left."""
        with locked(self.folder / _LOCK):
            for left in self.folder.glob(f".{_POINTER}.*"):
                left.unlink()
            yield

    def _write(self, pointer: Pointer) -> Pointer:
        write_whole(self._pointer, pointer.model_dump_json().encode())
        return pointer

    def stamp(self) -> tuple[int, ...]:
        """Return what is another whenever `active` is; one or two stats."""
        for path in (self._pointer, self.folder):
            try:
                found = os.stat(path)  # noqa: PTH116 - asked again and again
            except FileNotFoundError:
                continue
            return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        return ()
