"""What an import costs as the corpus grows: peak memory of 1,000,000 passages against 100,000, and the pace.

    python -m benchmarks.import_scale

The passages are generated: seeded, of the lengths of real ones, in the BEIR layout, with a query for every twenty.
Each size is imported by a process of its own, whose peak memory the operating system tells.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, Row, publish
from causalneg.console import Reporter
from causalneg.workspace import Workspace

_SIZES = (100_000, 1_000_000)
_QUICK = (2_000, 20_000)
_PASSAGES_PER_QUERY = 20
_WORDS = 50_000
_TITLE_WORDS, _QUERY_WORDS = 3, 7


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="folder to work in, emptied afterwards")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="2,000 and 20,000 passages")
    return parser.parse_args()


def _text(rng: np.random.Generator, vocabulary: list[str], length: int) -> str:
    """Return words whose frequencies fall as in a language (Zipf)."""
    ranks = np.minimum(rng.zipf(1.3, length), len(vocabulary)) - 1
    return " ".join(vocabulary[rank] for rank in ranks)


def generate(folder: Path, passages: int, seed: int = 0) -> None:
    """Write a data set in the BEIR layout: passages of 60 words at the median, the longest of several hundred."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    lengths = rng.integers(2, 11, _WORDS)
    vocabulary = ["".join(rng.choice(letters, length)) for length in lengths]
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for number, length in enumerate(np.clip(rng.lognormal(np.log(60), 0.5, passages), 5, 600).astype(int)):
            title = _text(rng, vocabulary, _TITLE_WORDS)
            row = {"_id": f"d{number}", "title": title, "text": _text(rng, vocabulary, length)}
            corpus.write(json.dumps(row) + "\n")
    with (
        (folder / "queries.jsonl").open("w", encoding="utf-8") as queries,
        (folder / "qrels" / "train.tsv").open("w", encoding="utf-8") as qrels,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for number in range(passages // _PASSAGES_PER_QUERY):
            queries.write(json.dumps({"_id": f"q{number}", "text": _text(rng, vocabulary, _QUERY_WORDS)}) + "\n")
            qrels.write(f"q{number}\td{rng.integers(passages)}\t1\n")


def measure(folder: Path, passages: int) -> tuple[float, float]:
    """Import generated passages in a process of its own; return its peak memory in MiB and passages per second."""
    generate(folder / "data", passages)
    command = [sys.executable, "-m", "causalneg.cli", "import", "--source", str(folder / "data")]
    started = time.monotonic()
    process = subprocess.Popen([*command, "--workspace", str(folder / "ws")])  # noqa: S603 - our own command
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the import of {passages} passages ended with {process.returncode}")
    made = Workspace(str(folder / "ws")).require("import").details["passages"]
    if made != passages:
        raise RuntimeError(f"{made} of {passages} passages were imported")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return usage.ru_maxrss * unit / 1024**2, passages / seconds


def main() -> None:
    """Import both sizes and publish the table."""
    arguments = _arguments()
    sizes = _QUICK if arguments.quick else _SIZES
    if arguments.workspace:
        arguments.workspace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="causalneg-import-", dir=arguments.workspace) as folder:
        (small, slow), (large, fast) = (measure(Path(folder) / str(size), size) for size in sizes)
    rows = [
        Row("peak memory, 1M against 100k", "MiB", large, "the same import of 100k", small, small / large, 0.9),
        Row("peak memory", "MiB", large, "allowed", 1536, 1536 / large, 1536),
        Row("passages per second", "passages/s", fast, "the same import of 100k", slow, fast / slow),
    ]
    publish("import_scale", rows, Reporter(), arguments.results)


if __name__ == "__main__":
    main()
