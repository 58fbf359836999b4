"""Changes that cannot be made: who asked learns why, who runs the server sees it, and it is over when it is healed."""

import asyncio
import os
import resource
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import ids_of, search, soon, with_service
from small_index import PASSAGES, build, small_workspace

from causalneg.indexing.catalog import Catalog
from causalneg.indexing.changes import Change, ChangeLog
from causalneg.serving.errors import ApiError
from causalneg.serving.schema import PassageBody
from causalneg.serving.service import LocalService
from causalneg.workspace import Workspace

BERLIN = PassageBody(id="berlin", title="Berlin", text="Berlin is the capital of Germany.")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return small_workspace(tmp_path / "ws")


@pytest.fixture
def log(workspace: Workspace) -> Path:
    return workspace.local_folder("index") / "changes.jsonl"


async def search_ids(service: LocalService) -> list[str]:
    return ids_of(await search(service, query="a capital", limit=100))[0]


async def refusal(service: LocalService) -> ApiError:
    """What an upsert gets; searches go on."""
    with pytest.raises(ApiError) as refused:
        await service.upsert([BERLIN], soon())
    assert "berlin" not in await search_ids(service)
    assert service.ready() is None
    return refused.value


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    """Wait until something is so, half a minute at most."""
    for _ in range(600):
        if await holds():
            return
        await asyncio.sleep(0.05)


async def healed(service: LocalService) -> None:
    """Wait until nothing is wrong any more."""

    async def holds() -> bool:
        return await service.problem() is None

    await until(holds)
    listed = await service.versions()
    assert (listed.problem, await service.problem()) == (None, None)


def test_a_damaged_log_is_named_and_never_cut(workspace: Workspace, log: Path) -> None:
    async def use(service: LocalService) -> None:
        await service.delete(["rome"])
        good = log.read_bytes()
        damaged = good + b'{"changes":[],"checksum":"0000000000000000"}\n'
        log.write_bytes(damaged)
        error = await refusal(service)
        assert (error.body.code, error.body.type) == (503, "changes_damaged")
        assert f"{log}, line 2 does not have its checksum" in error.body.message
        assert log.read_bytes() == damaged
        assert await service.problem() == error.body.message == (await service.versions()).problem
        log.write_bytes(good)
        await healed(service)
        assert (await service.upsert([BERLIN], soon())).change == 2
        assert "berlin" in await search_ids(service)

    with_service(workspace, use)


def test_what_stands_before_the_damage_is_not_lost(workspace: Workspace, log: Path, tmp_path: Path) -> None:
    async def use(service: LocalService) -> None:
        await service.delete(["rome"])
        other = Path(shutil.copy(log, tmp_path / "other.jsonl"))
        ChangeLog(other).append([Change.delete("moon")])
        ChangeLog(other).append([Change.delete("mars")])
        content = other.read_bytes()
        log.write_bytes(content.replace(b'"id":"mars"', b'"id":"murs"'))
        for _ in range(2):
            assert set(await search_ids(service)) == {"paris", "moon", "mars"}
        assert "line 3 does not have its checksum" in str(await service.problem())
        await refusal(service)
        log.write_bytes(content)
        await healed(service)
        assert await search_ids(service) == ["paris"]

    with_service(workspace, use)


@contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_until_there_is_room(workspace: Workspace, log: Path) -> None:
    async def use(service: LocalService) -> None:
        await service.delete(["nobody"])
        before = log.read_bytes()
        with no_more_than(len(before) + 100):
            error = await refusal(service)
            assert (error.body.code, error.body.type) == (507, "storage_full")
            assert str(log) in error.body.message
            await asyncio.sleep(1.1)  # it is looked at again
            assert await service.problem() == error.body.message == (await service.versions()).problem
        await healed(service)
        assert log.read_bytes() == before
        await service.upsert([BERLIN], soon())

    with_service(workspace, use)


def test_a_disk_that_cannot_be_written_is_said(workspace: Workspace, log: Path) -> None:
    """The file system of the kernel takes no new files, whoever asks."""

    async def use(service: LocalService) -> None:
        log.symlink_to("/sys/causalneg-changes")
        error = await refusal(service)
        assert (error.body.code, error.body.type) == (503, "storage_failed")
        assert f"{log} cannot be written" in error.body.message
        assert await service.problem() == error.body.message
        log.unlink()
        assert (await service.upsert([BERLIN], soon())).change == 1
        assert await service.problem() is None, "a write that is made ends it"

    with_service(workspace, use)


def test_a_log_that_cannot_be_read_stops_no_search(workspace: Workspace, log: Path) -> None:
    async def use(service: LocalService) -> None:
        await service.delete(["rome"])
        kept = log.rename(log.with_suffix(".kept"))
        log.mkdir()
        error = await refusal(service)
        assert (error.body.code, error.body.type) == (503, "storage_failed")
        assert await service.problem() is not None
        log.rmdir()
        kept.rename(log)
        await healed(service)

    with_service(workspace, use)


def test_a_merge_that_fails_is_said_until_one_succeeds(workspace: Workspace) -> None:
    async def use(service: LocalService) -> None:
        await service.delete([passage.id for passage in PASSAGES])
        await service.merge()
        await until(service.problem)
        problem = await service.problem()
        assert problem is not None
        assert problem.startswith("The last merge failed: ")
        assert "The changes take every passage away" in problem
        assert (await service.versions()).problem == problem
        await service.upsert([BERLIN], soon())
        await service.merge()
        await healed(service)
        assert (await service.versions()).active != "v1"

    with_service(workspace, use)


def test_a_version_that_cannot_be_opened_is_said_until_another_is_chosen(workspace: Workspace) -> None:
    folder = workspace.local_folder("index")
    build(workspace, "v2", PASSAGES[:2])
    os.truncate(folder / "v2" / "index-000.faiss", 10)

    async def use(service: LocalService) -> None:
        Catalog(folder).activate("v2")
        await until(service.problem)
        assert "damaged" in str(await service.problem())
        Catalog(folder).activate("v1")
        await healed(service)

    with_service(workspace, use)
