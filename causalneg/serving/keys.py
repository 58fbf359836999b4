"""API keys: made by `causalneg keys`, kept as hashes in a file, compared in constant time."""

import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.files import write_whole
from causalneg.serving.errors import ApiError
from causalneg.workspace import Workspace

Role = Literal["read", "write"]

_LOG = logging.getLogger("causalneg.serving")
_PREFIX = "cn_"
_BYTES = 32
_LOOK_EVERY = 1.0  # seconds


class Key(BaseModel):
    """A key as it is kept; the key itself is nowhere."""

    model_config = ConfigDict(extra="forbid")

    name: str
    role: Role
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: str


class KeyFile(BaseModel):
    """The file of the keys."""

    model_config = ConfigDict(extra="forbid")

    keys: list[Key]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def token_of(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request brings, as `Authorization: Bearer` or `X-API-Key`.

    Args:
        headers: their names in any case, as Starlette's are found.
    """
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    key = headers.get("x-api-key")
    return None if key is None else key.strip()


def read_file(path: Path) -> KeyFile:
    """Read a key file.

    Raises:
        UserError: it is not there, cannot be read, or is none.
    """
    try:
        return KeyFile.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"The key file {path} does not exist; make a key with `causalneg keys --file {path}`."
        ) from error
    except OSError as error:
        raise UserError(f"The key file {path} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"The key file {path} is damaged, {field}: {first['msg']}; make another.") from error


class Keys:
    """Who may do what. Without a file everybody may read and nobody may change anything.

    Args:
        path: the key file; it is read again when it has changed.
        look_every: seconds between looks whether it has.

    Raises:
        UserError: the file is not there or broken. One that breaks later leaves the keys as they were.
    """

    def __init__(self, path: Path | None = None, look_every: float = _LOOK_EVERY) -> None:
        self._path, self._look_every = path, look_every
        self._looked = time.monotonic()
        self._stamp = self._state()
        self._keys = read_file(path).keys if path else []

    @classmethod
    def read(cls, path: str | Path | None) -> "Keys":
        """Read a key file, or have none."""
        return cls(None if path is None else Path(path))

    @property
    def required(self) -> bool:
        """Whether a key is needed to read."""
        return self._path is not None

    def check(self, token: str | None, role: Role) -> str:
        """Return whose key it is; an empty text where none is needed.

        Raises:
            ApiError: 401 for no or an unknown key, 403 for one that may only read.
        """
        if not self.required:
            if role == "read":
                return ""
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "no_write_key",
                "Nobody may change anything on this server: make a key with `causalneg keys --role write` "
                "and start the server with `--keys FILE`.",
            )
        self._refresh()
        if token is None:
            raise ApiError(
                HTTPStatus.UNAUTHORIZED, "no_key", "Send a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            )
        digest, found = _hash(token), None
        for key in self._keys:  # all of them, so that the time says nothing about which
            if hmac.compare_digest(digest, key.sha256):
                found = key
        if found is None:
            raise ApiError(HTTPStatus.UNAUTHORIZED, "unknown_key", "This key is not known here.")
        if role == "write" and found.role != "write":
            raise ApiError(HTTPStatus.FORBIDDEN, "read_only_key", "This key may read only; use one with role write.")
        return found.name

    def _state(self) -> tuple[int, int, int] | None:
        """Return what changes with the file, or None when it is not there."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._path is None or now - self._looked < self._look_every:
            return
        self._looked = now
        state = self._state()
        if state == self._stamp:
            return
        self._stamp = state
        try:
            self._keys = read_file(self._path).keys
            _LOG.info("the key file was read again; it has %d keys", len(self._keys))
        except UserError as error:
            _LOG.error("the keys stay as they were: %s", error)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Keep others who add keys in this folder waiting."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, keys: list[Key]) -> None:
    """Write a key file so that it is there as a whole or not at all, for its owner only."""
    write_whole(path, f"{KeyFile(keys=keys).model_dump_json(indent=1)}\n".encode(), mode=0o600)


def add(path: Path, name: str, role: Role) -> str:
    """Make a key, add its hash to a file that need not be there yet, and return the key."""
    token = _PREFIX + secrets.token_urlsafe(_BYTES)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with _only_writer(path.parent):
        keys = read_file(path).keys if path.exists() else []
        _write(path, [*keys, Key(name=name, role=role, sha256=_hash(token), created=created)])
    return token


def remove(path: Path, name: str) -> int:
    """Remove the keys of a name from a file; return how many.

    Raises:
        UserError: there are none.
    """
    with _only_writer(path.parent):
        keys = read_file(path).keys
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            known = ", ".join(sorted({repr(key.name) for key in keys})) or "none"
            raise UserError(f"The key file {path} has no key of the name {name!r}; there are {known}.")
        _write(path, kept)
    return len(keys) - len(kept)


def run(config: Config, workspace: Workspace, report: Reporter) -> None:
    """Make a key and print it, the only thing on standard output; or remove the keys of a name.

    Raises:
        UserError: the file cannot be read or written.
    """
    settings = config.keys
    words, path = Reporter(), Path(settings.file).resolve()  # resolved, so that a link stays a link
    if not settings.name.strip():
        raise UserError("keys.name is empty; say whose key it is with --name.")
    try:
        if settings.remove:
            count = remove(path, settings.name)
            words.line(f"keys: removed {count} of the name {settings.name!r} from {path}")
            return
        token = add(path, settings.name, settings.role)
    except OSError as error:
        raise UserError(f"The key file {path} cannot be written ({error.strerror}); give another --file.") from error
    report.line(token)
    words.line(f"keys: added {settings.name!r}, role {settings.role}, to {path}; the key is shown this once")
    words.line(f"keys: start the server with --keys {path}; a running one takes the key within a second")
