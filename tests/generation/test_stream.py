"""Batches on Ray: a worker that is killed by one of its pairs is started again, and that pair alone is set aside."""

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from generation_samples import LINEAGE, ScriptedEngine, encode, first_option, pairs, style

from causalneg.config import EngineSettings, GenerateSettings
from causalneg.errors import UserError
from causalneg.generation.author import Author
from causalneg.generation.batches import BatchWorker
from causalneg.generation.drafts import Drafts
from causalneg.generation.edit.author import EditAuthor
from causalneg.generation.engines import Likelihood
from causalneg.generation.job import Job
from causalneg.generation.profiles import load_profile
from causalneg.generation.stream import run_batches
from causalneg.models import ResolvedModel
from causalneg.runtime import ray_session
from causalneg.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SETTINGS = GenerateSettings(engine=EngineSettings(cpus=0.5, batches_in_flight=2))


class Deadly(ScriptedEngine):
    """Kills its process at a query with poison; refuses to work at one with a user's mistake."""

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        if "POISON" in segments[-1]:
            os.kill(os.getpid(), signal.SIGKILL)
        if "MISTAKE" in segments[-1]:
            raise UserError("the key is wrong")
        return await super().likelihood(segments)


def make_worker(job: Job) -> BatchWorker:
    async def make() -> tuple[Author, Callable[[], Awaitable[None]]]:
        engine = Deadly(first_option)
        writer = EditAuthor(encode, SETTINGS, LINEAGE, by_likelihood=True)
        author = Author(engine, writer, "likelihood", encode, style(), SETTINGS, likelihoods=True)
        return author, engine.close

    return BatchWorker(Drafts(Workspace(job.root), job.key), make, SETTINGS)


def job_of(folder: Path, words: dict[int, str]) -> tuple[Job, Drafts]:
    rows = pairs(10)
    for at, text in words.items():
        rows[at] = rows[at].model_copy(update={"query": rows[at].query.model_copy(update={"text": text})})
    drafts = Drafts(Workspace(str(folder)), "key")
    drafts.write_pairs(rows, 3)
    nobody = ResolvedModel("m", folder, "f")
    return Job(str(folder), "key", SETTINGS, load_profile("generic"), LINEAGE, "m", nobody, nobody, None), drafts


def run(job: Job, drafts: Drafts) -> dict[str, str | None]:
    import ray.cloudpickle

    for name in ("test_stream", "generation_samples"):  # the workers can't import what is only on pytest's path
        ray.cloudpickle.register_pickle_by_value(sys.modules[name])
    with ray_session():
        outcomes = list(run_batches(job, drafts.batches(), make_worker))
    assert len(outcomes) == len({o.input_id for o in outcomes})
    return {o.input_id: o.failure for o in outcomes}


def test_a_pair_that_kills_its_worker_is_set_aside_and_no_other(tmp_path: Path) -> None:
    job, drafts = job_of(tmp_path, {4: "Who is the POISON?"})
    assert run(job, drafts) == {f"pair-{n}": "engine_killed" if n == 4 else None for n in range(10)}
    assert drafts.unfinished()[0] == []


def test_a_users_mistake_reaches_the_user(tmp_path: Path) -> None:
    job, drafts = job_of(tmp_path, {4: "What is the MISTAKE?"})
    with pytest.raises(UserError, match="the key is wrong"):
        run(job, drafts)


def test_what_the_cluster_has_not_is_not_waited_for(tmp_path: Path) -> None:
    job, drafts = job_of(tmp_path, {})
    many = job.settings.model_copy(update={"engine": EngineSettings(replicas=1000, cpus=4)})
    with pytest.raises(UserError, match=r"1000 engines need 4000 CPUs"):
        run(replace(job, settings=many), drafts)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no small disk")
    try:
        job, drafts = job_of(disk, {})
        with pytest.raises(Exception, match="No space left on device"):
            run(job, drafts)
        left, done = drafts.unfinished()
        assert left
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        outcomes = run(job, drafts)
        assert len(done) + len([b for b in outcomes if b not in {o.input_id for o in done}]) == 10
        assert drafts.unfinished()[0] == []
        assert [name for name in Path(disk).rglob(".*") if name.is_file()] == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
