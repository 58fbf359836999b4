"""Killing what trains, for real: the driver, and one of two workers; the final weights are those of a calm run."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from processes import check_interrupted, descendants, start, wait_until_gone
from safetensors.numpy import load_file
from training_samples import random_workspace, tiny_encoder

from causalneg.models import fingerprint
from causalneg.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

_FLAGS = (
    *(
        "--workers",
        "2",
        "--epochs",
        "40",
        "--batch-size",
        "4",
        "--precision",
        "fp32",
        "--threads",
        "1",
        "--checkpoint-every",
        "5",
    ),
    *("--log-every", "1", "--encoder.query-length", "16", "--encoder.passage-length", "16", "--dev.min-queries", "2"),
    *("--dev.max-passages", "20", "--dev.every", "20", "--encoder.dropout", "true", "--loss.candidates", "global"),
)
_STEPS = 200
CHECKPOINTS = "building/train/checkpoints"


def _command(folder: Path) -> list[str]:
    return ["train", "--workspace", str(folder / "ws"), "--encoder", str(folder / "encoder" / "model"), *_FLAGS]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace and an encoder, nothing trained."""
    folder = tmp_path_factory.mktemp("begun")
    random_workspace(folder / "ws", rows=20)
    tiny_encoder(folder / "encoder", dropout=0.1)
    return folder


@pytest.fixture(scope="module")
def calm(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained without a disturbance."""
    folder = tmp_path_factory.mktemp("calm") / "calm"
    shutil.copytree(begun, folder)
    assert start(*_command(folder)).wait() == 0
    return folder


@pytest.fixture
def killed(begun: Path, tmp_path: Path) -> Path:
    """The same, not yet trained."""
    return Path(shutil.copytree(begun, tmp_path / "killed"))


def _wait_for_checkpoint(folder: Path, driver: subprocess.Popen[bytes], beyond: int = 0) -> int:
    """Wait for a checkpoint after a step that is not the last; return its step."""
    deadline = time.monotonic() + 300
    while True:
        steps = [int(p.name.removeprefix("step-")) for p in (folder / "ws" / CHECKPOINTS).glob("step-*")]
        if steps and max(steps) > beyond:
            return max(steps)
        assert driver.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _same(calm: Path, killed: Path) -> None:
    one, other = (load_file(folder / "ws" / "model" / "model.safetensors") for folder in (calm, killed))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert fingerprint(calm / "ws" / "model") == fingerprint(killed / "ws" / "model"), "what is behind would be redone"
    details = [Workspace(str(folder / "ws")).require("train").details for folder in (calm, killed)]
    assert details[0]["epochs"] == details[1]["epochs"]
    assert details[0]["dev"] == details[1]["dev"]
    assert details[0]["steps"] == _STEPS
    steps = [json.loads(line)["step"] for line in (killed / "ws" / "training" / "log.jsonl").open()]
    assert steps == sorted(steps)
    assert len(set(steps)) == _STEPS + 1


def test_a_killed_driver_goes_on_to_the_very_same_weights(calm: Path, killed: Path) -> None:
    driver = start(*_command(killed))
    _wait_for_checkpoint(killed, driver)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until_gone(children)
    assert not (killed / "ws" / "model").exists()
    store = (killed / "ws" / CHECKPOINTS / "data" / "facts.json").stat().st_mtime_ns

    again = start(*_command(killed))
    _wait_for_checkpoint(killed, again)
    assert (killed / "ws" / CHECKPOINTS / "data" / "facts.json").stat().st_mtime_ns == store, "tokenised again"
    assert again.wait() == 0
    _same(calm, killed)

    # Trained with other settings and killed, the model is the earlier one, and is used.
    other = start(*_command(killed), "--seed", "1")
    _wait_for_checkpoint(killed, other)
    children = psutil.Process(other.pid).children(recursive=True)
    other.send_signal(signal.SIGKILL)
    other.wait()
    wait_until_gone(children)
    _same(calm, killed)
    assert start("index", "--workspace", str(killed / "ws")).wait() == 0
    assert Workspace(str(killed / "ws")).require("index").details["trained"]
    assert start(*_command(killed)).wait() == 0, "it is done"
    _same(calm, killed)


def test_a_killed_worker_is_replaced_and_the_weights_are_the_same(calm: Path, killed: Path) -> None:
    driver = start(*_command(killed))
    step = _wait_for_checkpoint(killed, driver)
    victims = descendants(driver, lambda name: "RayTrainWorker" in name)
    assert len(victims) == 2
    victims[0].send_signal(signal.SIGKILL)
    _wait_for_checkpoint(killed, driver, beyond=step)
    assert driver.wait() == 0
    _same(calm, killed)


def test_an_interrupted_command_ends_with_its_workers_and_goes_on_where_it_was(calm: Path, killed: Path) -> None:
    step = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        driver = start(*_command(killed), stderr=subprocess.PIPE)
        step = _wait_for_checkpoint(killed, driver, beyond=step)
        check_interrupted(driver, number)
    assert start(*_command(killed)).wait() == 0
    _same(calm, killed)
