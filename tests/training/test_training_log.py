"""The training log: what is written comes back, and a killed writer harms nothing but its own line."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from causalneg.errors import UserError
from causalneg.training.log import Log, flat


def _record(step: int, kind: str = "train") -> dict[str, object]:
    return {"step": step, "epoch": step / 10, "kind": kind, "loss/total": 1.0 / step}


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log in a folder that is not there yet."""
    return Log(tmp_path / "train" / "log.jsonl")


def test_what_is_written_comes_back(log: Log) -> None:
    records = [_record(10), _record(20), _record(20, "dev") | {"nDCG@10": 0.25, "diagnostics/auc": None}]
    for number, record in enumerate(records, 1):
        log.append(record)
        assert len(log.path.read_text().splitlines()) == number  # at once
    assert log.read() == records


def test_no_log_yet(log: Log) -> None:
    log.truncate(10)
    assert log.read() == []
    assert not log.path.exists()


def test_numbers_that_json_lacks(log: Log) -> None:
    log.append(
        {
            "step": np.int64(3),
            "kind": "train",
            "a": math.nan,
            "b": math.inf,
            "c": -math.inf,
            "d": np.float32(0.5),
            "e": np.float64("nan"),
        }
    )
    assert log.read() == [{"step": 3, "kind": "train", "a": None, "b": None, "c": None, "d": 0.5, "e": None}]
    assert "NaN" not in log.path.read_text()


@pytest.mark.parametrize("torn", ['{"step": 30, "ep', "{", '{"step": 30, "epoch": 3.0}', "\0\0\0"])
def test_torn_last_line(log: Log, torn: str) -> None:
    """A line without its newline is not there, even where it happens to be JSON."""
    log.append(_record(10))
    log.append(_record(20))
    whole = log.path.read_text()
    log.path.write_text(whole + torn)
    assert log.read() == [_record(10), _record(20)]
    log.append(_record(40))
    assert log.read() == [_record(10), _record(20), _record(40)]
    log.path.write_text(whole + torn)
    log.truncate(20)
    assert log.path.read_text() == whole


def test_torn_only_line(log: Log) -> None:
    log.append(_record(10))
    log.path.write_text('{"st')
    assert log.read() == []
    log.append(_record(10))
    assert log.read() == [_record(10)]


def test_truncate(log: Log) -> None:
    for step in (10, 20, 30):
        log.append(_record(step))
        log.append(_record(step, "dev"))
    log.truncate(20)
    assert [(r["step"], r["kind"]) for r in log.read()] == [(10, "train"), (10, "dev"), (20, "train"), (20, "dev")]
    log.truncate(0)
    assert log.read() == []
    assert [p.name for p in log.path.parent.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("broken", ["no json", "[1]", '{"epoch": 1}'])
def test_broken_line_within(log: Log, broken: str) -> None:
    log.append(_record(10))
    log.path.write_text(f"{json.dumps(_record(10))}\n{broken}\n{json.dumps(_record(20))}\n")
    with pytest.raises(UserError, match="line 2"):
        log.read()


def test_flat() -> None:
    assert flat({"step": 1, "loss": {"total": 2, "parts": {"kl": 3}}}) == {
        "step": 1,
        "loss/total": 2,
        "loss/parts/kl": 3,
    }
    assert flat({"train": {"epochs": 3}}, ".") == {"train.epochs": 3}
