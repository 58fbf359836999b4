"""Trackers: what they are sent can be read back, a missing package is said, a failing one is dropped."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from causalneg.errors import UserError
from causalneg.training import trackers
from causalneg.training.trackers import open_trackers

SETTINGS = {"seed": 3, "train": {"epochs": 2, "weights": [{"source": "mined"}], "dev": {"patience": None}}}
RECORDS: list[dict[str, Any]] = [
    {"step": 10, "epoch": 0.5, "kind": "train", "loss/total": 1.5},
    {"step": 10, "epoch": 0.5, "kind": "dev", "nDCG@10": 0.25, "diagnostics/mutual_information": None},
    {"step": 20, "epoch": 1.0, "kind": "train", "loss/total": 1.25},
]
EXPECTED = {
    ("train/epoch", 10, 0.5),
    ("train/loss/total", 10, 1.5),
    ("dev/epoch", 10, 0.5),
    ("dev/nDCG_10", 10, 0.25),
    ("train/epoch", 20, 1.0),
    ("train/loss/total", 20, 1.25),
}


def _run(name: str, folder: Path) -> None:
    told: list[str] = []
    opened = open_trackers([name], "run-1", folder, SETTINGS, told.append)
    for record in RECORDS:
        opened.log(record)
    opened.close()
    assert told == []


def _events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Read the event files: lengths of 8 bytes with a checksum of 4, then a record with one."""
    from tensorboardX.proto.event_pb2 import Event

    for path in folder.glob("events.out.tfevents.*"):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + length])
            yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)
            at += 16 + length


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    _run("tensorboard", tmp_path)
    assert set(_events(tmp_path / "run-1")) == EXPECTED
    (settings,) = (tmp_path / "run-1").glob("*/hparams.yml")
    assert "train.epochs: 2" in settings.read_text()


def test_tensorboard_goes_on_in_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    for records in (RECORDS[:1], RECORDS[1:]):
        opened = open_trackers(["tensorboard"], "run-1", tmp_path, {})
        for record in records:
            opened.log(record)
        opened.close()
        time.sleep(1.1)  # event files are named by the second
    assert set(_events(tmp_path / "run-1")) == EXPECTED


@pytest.mark.parametrize("store", ["database", "files"])
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}"
    if store == "files":
        uri = (tmp_path / "files").as_uri()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    else:
        pytest.importorskip("sqlalchemy")
        pytest.importorskip("alembic")
    _run("mlflow", tmp_path / "out")
    assert os.environ.get("MLFLOW_TRACKING_URI") == (uri if store == "files" else None)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("causalneg")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert run.data.params["train.epochs"] == "2"
    found = {
        (m.key, m.step, m.value) for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)
    }
    assert found == EXPECTED


def _wandb_records(content: bytes) -> Iterator[bytes]:
    """Read what wandb wrote: LevelDB's log format behind 7 bytes; checksum 4, length 2, whole or part of a record 1."""
    block, at, part = 32768, 7, b""
    while at + 7 <= len(content):
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last
            yield part
            part = b""
        if block - at % block < 7:
            at += block - at % block


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    _run("wandb", tmp_path)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    found, names = set(), set()
    for data in _wandb_records(path.read_bytes()):
        record = Record.FromString(data)
        names.add(record.run.display_name)
        items = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        found |= {(name, items["_step"], value) for name, value in items.items() if not name.startswith("_")}
    assert found == EXPECTED
    assert "run-1" in names


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"pip install {package}`"):
        open_trackers([name], "run-1", tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


class _Failing:
    """A tracker whose network is down from some call on."""

    def __init__(self, name: str, fails_at: str) -> None:
        self.name, self._fails_at = name, fails_at
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self._fails_at:
            raise ConnectionError("no route to host")

    def start(self) -> None:
        """Begin."""
        self._called("start")

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Take settings."""
        self._called("store")

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Take values."""
        self._called("log")

    def finish(self) -> None:
        """End."""
        self._called("finish")


@pytest.mark.parametrize("fails_at", ["start", "store", "log", "finish"])
def test_a_failing_tracker_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    bad, good = _Failing("wandb", fails_at), _Failing("tensorboard", "never")
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.setattr(trackers, "_TRACKERS", {"wandb": lambda *_: bad, "tensorboard": lambda *_: good})
    told: list[str] = []
    opened = open_trackers(["wandb", "tensorboard"], "run-1", tmp_path, {}, told.append)
    for record in RECORDS:
        opened.log(record)
    opened.close()
    assert good.calls == ["start", "store", "log", "log", "log", "finish"]
    assert bad.calls == good.calls[: good.calls.index(fails_at) + 1]
    assert len(told) == 1
    assert "wandb" in told[0]
    assert "no route to host" in told[0]


def test_no_trackers(tmp_path: Path) -> None:
    opened = open_trackers([], "run-1", tmp_path / "out", SETTINGS)
    opened.log(RECORDS[0])
    opened.close()
    assert not (tmp_path / "out").exists()
