"""Where the results of a run lie, which of its stages are done, and how a new result takes the place of an old one.

A stage builds beside what is there, in `building/<stage>/`, and `StageRun.workspace` is how it sees the workspace: its
own folders are the new ones, all others are as they are. Until it is done the old result stays as it was, for every
other stage. What was killed goes on there when it is run again with the same settings and inputs.

When it is done, the new manifest is written as `building/<stage>.json`, and from then on the new result counts. What is
left is done in an order in which it can be cut off anywhere and done again: the folders take their places, the manifest
takes its place in `manifests/`, and `building/` is cleared, last of all the file that says that this is to be done.
Whoever asks for the stage's manifest does what is left.

A stage is done when its manifest has the stage's revision, settings and inputs, and its files are there. What it was
made from is known by digest: of the files that later stages read, and of nothing else, so that a stage that is done
again with the same result leaves those behind it done. Those behind a changed one are outdated, and stay until they
are run. Workspaces of 0.1.0 have another way of saying all this, which `causalneg.former` knows.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from causalneg import __version__, former
from causalneg.config import Settings
from causalneg.errors import UserError
from causalneg.files import locked, sync
from causalneg.manifest import Counts, Manifest
from causalneg.records import Passage, Qrel, content_id, from_table
from causalneg.stages import FOLDERS, Stage, determining, revision
from causalneg.storage import Storage

__all__ = ["HELD_OUT", "Counts", "Manifest", "Stage", "StageRun", "Workspace"]

# Written by train: the ids of the queries that it held out, in the column `query_id`.
HELD_OUT = "training/held_out.parquet"

_BUILDING = "building"


def _manifest(stage: Stage) -> str:
    return f"manifests/{stage}.json"


def _former_mark(stage: Stage) -> str:
    """Return the file in which 0.1.0 kept the key of a stage that it had started."""
    return f"manifests/{stage}.started"


def _build(stage: Stage) -> str:
    """Return the folder in which a stage builds."""
    return f"{_BUILDING}/{stage}"


def _mark(stage: Stage) -> str:
    """Return the file that holds the key of a result that is being built."""
    return f"{_build(stage)}/key"


def _whole(stage: Stage) -> str:
    """Return the manifest of a result that is whole and not yet in its place."""
    return f"{_BUILDING}/{stage}.json"


@dataclass
class StageRun:
    """A stage at work: `done` holds its manifest when there is nothing to do.

    Attributes:
        workspace: as the stage sees it: its own folders are those of the new result.
        key: hash of what determines the result.
        config: that, but for the inputs.
        inputs: digests of the results that it is made from, by stage.
        resumed: whether an earlier run left some of this very result behind.
    """

    workspace: "Workspace"
    stage: Stage
    key: str
    config: dict[str, Any]
    inputs: dict[str, str]
    done: Manifest | None
    resumed: bool
    started: float = field(default_factory=time.time)

    def finish(
        self,
        counts: Counts,
        tokens: Mapping[str, int] | None = None,
        details: Mapping[str, Any] | None = None,
        folders: Iterable[str] = (),
    ) -> Manifest:
        """Put the result in its place, with a manifest that has the checksums of its files, and return that.

        Args:
            counts: rows.
            tokens: of an LLM.
            details: what else there is to say.
            folders: that belong to the result and are in their place already.
        """
        files = self.workspace.list_files([*FOLDERS[self.stage].results, *folders])
        manifest = Manifest(
            stage=self.stage,
            key=self.key,
            version=__version__,
            revision=revision(self.stage),
            config=self.config,
            inputs=self.inputs,
            counts=counts,
            tokens=dict(tokens or {}),
            details=dict(details or {}),
            seconds=round(time.time() - self.started, 2),
            finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            files={name: self.workspace.checksum(name) for name in files},
        )
        return Workspace(self.workspace.root_url).publish(manifest)


class Workspace(Storage):
    """A folder, on this machine or in an object store, that holds everything of a run.

    Args:
        root: path or fsspec URL.
        building: a stage whose own folders are those of its new result.

    Raises:
        UserError: nothing here can open such a URL.
    """

    def __init__(self, root: str, building: Stage | None = None) -> None:
        super().__init__(root)
        self._building = building

    def path(self, *parts: str) -> str:
        """Return the path of something in the workspace, as its file system writes it."""
        relative = "/".join(parts)
        if self._building and relative.split("/", 1)[0] in FOLDERS[self._building].all:
            return super().path(_build(self._building), relative)
        return super().path(relative)

    def passages(self, ids: set[str]) -> dict[str, Passage]:
        """Return the passages with these ids, reading the corpus as a stream."""
        found: dict[str, Passage] = {}
        wanted = pa.array(sorted(ids), pa.string())
        for batch in self.read_batches("corpus", Passage):
            mask = pc.is_in(batch.column("id"), value_set=wanted)
            for passage in from_table(Passage, batch.filter(mask)):
                found[passage.id] = passage
        return found

    def positives(self, split: str) -> dict[str, list[str]]:
        """Return the ids of the positives of each query of a split, both in the order of import."""
        positives: dict[str, list[str]] = {}
        for qrel in self.read_rows("qrels", Qrel):
            if qrel.split == split and qrel.score > 0:
                positives.setdefault(qrel.query_id, []).append(qrel.passage_id)
        return positives

    # Stages

    def manifest(self, stage: Stage) -> Manifest | None:
        """Return the manifest of a finished stage, or None; a result that is whole is put in its place first."""
        self._settle(stage)
        return self._read_manifest(stage, _manifest(stage)) if self.exists(_manifest(stage)) else None

    def _read_manifest(self, stage: Stage, name: str) -> Manifest:
        try:
            return Manifest.model_validate_json(self.read_bytes(name))
        except ValidationError as error:
            raise UserError(f"{self.path(name)} is damaged; remove it and run `causalneg {stage}` again.") from error

    def require(self, stage: Stage) -> Manifest:
        """Return the manifest of a stage that must be done.

        Raises:
            UserError: it is not.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            raise UserError(f"The workspace {self.root_url} has no finished {stage}; run `causalneg {stage}` first.")
        return manifest

    def is_outdated(self, stage: Stage) -> bool:
        """Whether a finished stage was made from an earlier result of a stage before it, or from an outdated one."""
        made = self.require(stage)
        for name, digest in made.inputs.items():
            now = self.manifest(name)  # type: ignore[arg-type] # inputs are stages
            if now is None or not now.is_known_as(digest) or self.is_outdated(now.stage):
                return True
        return False

    def is_being_built(self, stage: Stage) -> bool:
        """Whether a run of a stage has begun a result and not finished it."""
        return self.exists(_mark(stage)) or self.exists(_former_mark(stage))

    def begin(
        self,
        stage: Stage,
        settings: Mapping[str, Any],
        inputs: Iterable[Stage],
        check: Callable[[], None] | None = None,
        say: Callable[[str], None] | None = None,
        again: bool = False,
    ) -> StageRun:
        """Start a stage, resume it, or find that it is done.

        It is resumed when an unfinished run of the same settings and inputs left work behind; what was left by
        another one is removed. The result that is there stays until the new one is finished.

        Args:
            stage: which stage.
            settings: everything that determines the stage's result.
            inputs: stages whose results it reads; each must be done.
            check: called when there is work to do, before anything is written; may raise UserError.
            say: is told why there is work where there is a result, and of inputs that are outdated.
            again: do it even though it is done.
        """
        say = say or (lambda line: None)
        config = {k: v.model_dump(mode="json") if isinstance(v, Settings) else v for k, v in settings.items()}
        made: dict[str, Manifest] = {name: self.require(name) for name in inputs}
        for manifest in made.values():
            if self.is_outdated(manifest.stage):
                say(f"{stage}: {manifest.stage} is outdated, a stage before it has changed; it is used as it is")
        digests = {name: manifest.digest for name, manifest in made.items()}
        key = content_id(stage, revision(stage), determining(config), digests)
        resumed = self.exists(_mark(stage)) and self.read_bytes(_mark(stage)) == key.encode()
        earlier = self.manifest(stage)
        if earlier:
            why = earlier.difference(config, made) or self._lost(earlier)
            if why is None and not again and not resumed:
                return StageRun(self, stage, key, config, digests, earlier, resumed=False)
        if check:
            check()
        if earlier:
            why = why or "it is done again"
            say(f"{stage}: the result of {earlier.finished} stays until the new one is whole: {why}")
        if not resumed:
            self._clear_build(stage)
            self.write_bytes(_mark(stage), key.encode())
        former_key = former.stage_key(stage, config, {n: m.former_digest for n, m in made.items()})
        resumed |= self._take_over(stage, former_key)
        return StageRun(Workspace(self.root_url, stage), stage, key, config, digests, None, resumed)

    def _lost(self, manifest: Manifest) -> str | None:
        return next((f"{name} is gone" for name in manifest.files if not self.exists(name)), None)

    def _clear_build(self, stage: Stage) -> None:
        self.remove(_mark(stage))  # first: what is left of a folder must not be taken for a result that is being built
        self.remove(_build(stage))

    def _take_over(self, stage: Stage, key: str | None) -> bool:
        """Go on with what 0.1.0 left unfinished in the place of a result, or remove it; return whether it goes on.

        Args:
            stage: which stage.
            key: that 0.1.0 would have given to this very result, if any.
        """
        mark = _former_mark(stage)
        if not self.exists(mark):
            return False
        taken = key is not None and self.read_bytes(mark) == key.encode()
        if not self.exists(_manifest(stage)):  # otherwise it was killed when all was done
            for folder in FOLDERS[stage].all:
                if taken and self.exists(folder):
                    self._move(folder, f"{_build(stage)}/{folder}")
                self.remove(folder)
        self.remove(mark)
        return taken

    # A new result

    def publish(self, manifest: Manifest) -> Manifest:
        """Let a result that was built take the place of the one that is there; return its manifest."""
        stage = manifest.stage
        earlier = self.manifest(stage)
        if earlier and earlier.digest == manifest.digest:  # what was made from the one is made from the other
            manifest = manifest.model_copy(update={"known_as": earlier.former_digest})
        self.write_bytes(_whole(stage), manifest.model_dump_json(indent=1).encode())
        self._settle(stage)
        return manifest

    def _settle(self, stage: Stage) -> None:
        """Put a result that is whole in its place, as far as that is not done.

        Raises:
            UserError: the workspace cannot be written.
        """
        if not self.exists(_whole(stage)):
            return
        try:
            with self._alone():
                if self.exists(_whole(stage)):
                    self._put_in_place(self._read_manifest(stage, _whole(stage)))
        except OSError as error:
            raise UserError(
                f"The new result of {stage} is whole, but could not be put in its place in {self.root_url} "
                f"({error.strerror or error}); see that it can be written, and run any command again."
            ) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one to put results in their place; in an object store there is no way to be sure of that."""
        if not self.is_local:
            yield
            return
        with locked(Path(self.path("manifests/.lock"))):
            yield

    def _put_in_place(self, manifest: Manifest) -> None:
        stage = manifest.stage
        for folder in FOLDERS[stage].results:
            names = [name for name in manifest.files if name.startswith(f"{folder}/")]
            if not names:
                self.remove(folder)
            elif self.exists(f"{_build(stage)}/{folder}"):
                self._replace(folder, f"{_build(stage)}/{folder}", names)
        self.write_bytes(_manifest(stage), manifest.model_dump_json(indent=1).encode())
        self.remove(_build(stage))
        self.remove(_whole(stage))
        if self.is_local:
            with suppress(OSError):  # another stage builds there
                Path(self.path(_BUILDING)).rmdir()

    def _replace(self, folder: str, fresh: str, names: Iterable[str]) -> None:
        """Put a folder in the place of another; done again after it was cut off anywhere, it comes to the same."""
        if self.is_local:
            if self.exists(folder):
                old = Path(self.path(f"{fresh}.old"))
                self.remove(f"{fresh}.old")
                Path(self.path(folder)).rename(old)
            self._move(folder=fresh, target=folder)
            return
        self._move(folder=fresh, target=folder)
        for name in set(self.list_files([folder])) - set(names):
            self.remove(name)

    def _move(self, folder: str, target: str) -> None:
        """Give a folder another name; in an object store its files are copied, and those there are replaced."""
        if self.is_local:
            there = Path(self.path(target))
            there.parent.mkdir(parents=True, exist_ok=True)
            Path(self.path(folder)).rename(there)
            sync(there.parent)
            return
        for name in self.list_files([folder]):
            self.fs.cp_file(self.path(name), self.path(target + name.removeprefix(folder)))
