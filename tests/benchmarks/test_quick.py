"""Every benchmark runs in its quick form and writes rows of the agreed shape."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

BENCHMARKS = {
    "exact_search": [],
    "false_negatives": [],
    "faults": [pytest.mark.ray],
    "gates": [pytest.mark.vllm],
    "generation": [pytest.mark.vllm],
    "gpu": [],
    "import_scale": [],
    "index": [],
    "loss": [],
    "mining": [],
    "quality": [pytest.mark.vllm],
    "rewrite": [pytest.mark.ray],
    "serving": [pytest.mark.ray],
    "training": [pytest.mark.ray],
}  # with the marks of what they start
FIELDS = {"metric", "unit", "ours", "peer_name", "peer", "ratio", "goal"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, marks in BENCHMARKS.items()])
def test_a_benchmark_measures(name: str, repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--results", str(tmp_path)]
    workspace = ["--workspace", str(tmp_path / "ws")]
    done = subprocess.run(
        command + workspace, cwd=repository, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("*.json")
    content = json.loads(result.read_text())
    assert content["machine"]
    assert content["versions"]["torch"]
    assert content["rows"]
    assert all(set(row) == FIELDS for row in content["rows"])
    if name == "faults":  # nothing may be lost; how long things take is for a quiet machine to say
        lost = {row["metric"]: row["ours"] for row in content["rows"] if row["peer"] == 0}
        assert lost
        assert not any(lost.values()), lost


def test_every_benchmark_is_tested(repository: Path) -> None:
    modules = {p.stem for p in (repository / "benchmarks").glob("*.py")} - {"__init__", "common", "servers"}
    assert modules == set(BENCHMARKS)
