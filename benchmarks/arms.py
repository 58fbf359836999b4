"""What training gains: the base encoder, mined negatives only, and mined with generated ones, in one workspace.

    python -m benchmarks.arms --config configs/demo.yaml --name sample --workspace arms-workspace
    python -m benchmarks.arms --config configs/scifact.yaml --source scifact.zip --name scifact --workspace …

Both arms share import and mining, the seed and the order of the rows. One run each: a first look, not a proof.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, Row, publish
from causalneg import pipeline
from causalneg.config import load_config
from causalneg.console import own_terminal
from causalneg.runtime import ray_session
from causalneg.workspace import Workspace

_QUICK = {"import.max_train_queries": 8, "train.epochs": 1, "train.mined_per_query": 2, "mine.search.depth": 20}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--source", help="data set, as for `causalneg import`; the config's when unset")
    parser.add_argument("--name", default="sample", help="name of the result")
    parser.add_argument("--workspace", help="kept, so that the run can be resumed; a temporary one when unset")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="a few queries only: does it run, not what it gives")
    return parser.parse_args()


def _rows(base: dict[str, float], mined: dict[str, float], generated: dict[str, float]) -> list[Row]:
    arms = [
        ("mined only", mined, "base encoder", base),
        ("mined + generated", generated, "base encoder", base),
        ("mined + generated", generated, "mined only", mined),
    ]
    return [
        Row(f"{measure}, {name}", "share", ours[measure], peer_name, peer[measure], ours[measure] / peer[measure])
        for measure in base
        for name, ours, peer_name, peer in arms
    ]


def main() -> None:
    """Run the arms and publish the table."""
    arguments = _arguments()
    folder = arguments.workspace or tempfile.mkdtemp(prefix="causalneg-arms-")
    flags: dict[str, Any] = {"workspace": folder} | (_QUICK if arguments.quick else {})
    if arguments.source:
        flags["import.source"] = arguments.source
    full = load_config(arguments.config, flags)
    mined_only = load_config(arguments.config, flags | {"train.generated_per_query": 0})
    workspace = Workspace(folder)
    with own_terminal(Path(folder) / "logs" / "arms.log") as report, ray_session():
        report.line("arm: mined only", style="bold")
        mined = pipeline.run(mined_only, workspace, report)[-1].details
        report.line("arm: mined + generated", style="bold")
        generated = pipeline.run(full, workspace, report)[-1].details
        rows = _rows(mined["base"], mined["trained"], generated["trained"])
        publish(f"arms-{arguments.name}", rows, report, arguments.results)


if __name__ == "__main__":
    main()
