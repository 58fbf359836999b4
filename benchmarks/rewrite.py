"""Rewrite mode with a strong writer: what its gates accept, what that takes, and whether a reader agrees.

    python -m benchmarks.rewrite --source rewrite-recorded.zip

The writer's and judge's answers are recorded (`recordings/rewrite/answers.jsonl.gz`), so the run asks no LLM. They were
written by hand, each from its prompt alone. A reader then read every negative: `readings.jsonl` says whether it breaks
what it says it breaks, and gives no answer. The held-out pairs of `pairs.json` played no part while prompts and gates
were made. The peer is the run of the same pairs with the prompts and gates before, in the source's `results/`.
"""

import argparse
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import RESULTS, Row, publish
from benchmarks.endpoints.replay import MODEL, replaying
from causalneg.config import Config, load_config
from causalneg.console import Reporter, own_terminal
from causalneg.generation.run import run as run_generate
from causalneg.mining.run import run as run_mine
from causalneg.records import Negative, Outcome
from causalneg.sources.run import run as run_import
from causalneg.workspace import Workspace

RECORDINGS = Path(__file__).parent / "recordings"
_PROFILES = {"squad": "nq", "hotpotqa": "hotpotqa", "msmarco": "mmarco"}
_NEGATIVES = 3  # per pair, as published
_SAMPLE_PAIRS = 5

# Of the source's results, 66 negatives of 22 pairs; tokens as the endpoint counts them, a quarter of the characters.
_BEFORE = {"accepted": 21 / 66, "calls": 17.3 * 21 / 22, "tokens": 17_500.0, "good": 15 / 21, "lost": 25 / 66}


@dataclass(frozen=True)
class Made:
    """What a data set gave.

    Attributes:
        negatives: all of them, with their verdicts.
        outcomes: one per pair.
    """

    negatives: list[Negative]
    outcomes: list[Outcome]

    def of(self, queries: set[str]) -> "Made":
        """Return the part that belongs to some queries."""
        return Made(
            [n for n in self.negatives if n.query_id in queries], [o for o in self.outcomes if o.query_id in queries]
        )


def configuration(source: str, profile: str, url: str, queries: int | None = None) -> Config:
    """Return the settings of a run whose answers come from an endpoint, for so many train queries at most."""
    flags = {
        "import.source": source,
        "import.max_train_queries": queries,
        "llm": MODEL,
        "generate.mode": "rewrite",
        "generate.judge": "yes_no",
        "generate.candidates": _NEGATIVES,
        "generate.profile": profile,
        "generate.engine.url": url,
        "generate.engine.max_attempts": 1,
    }
    return load_config(flags=flags)


def make(source: str, profile: str, url: str, folder: Path, report: Reporter, queries: int | None = None) -> Made:
    """Import, mine and generate."""
    config, workspace = configuration(source, profile, url, queries), Workspace(str(folder))
    for stage in (run_import, run_mine, run_generate):
        stage(config, workspace, report)
    return Made(list(workspace.read_rows("negatives", Negative)), list(workspace.read_rows("outcomes", Outcome)))


def figures(made: Made, good: dict[str, bool]) -> dict[str, float]:
    """Return what the negatives took and how far a reader agrees with their verdicts.

    Args:
        made: negatives and outcomes.
        good: by a negative's id, whether the reader found it to be what it says.
    """
    accepted = [n for n in made.negatives if n.verdict == "accepted"]
    rejected = [n for n in made.negatives if n.verdict == "rejected"]
    tokens = sum(o.prompt_tokens + o.generated_tokens for o in made.outcomes)
    found = {
        "accepted": len(accepted) / max(1, len(made.negatives)),
        "calls": sum(o.requests for o in made.outcomes) / max(1, len(made.outcomes)),
        "tokens": tokens / max(1, len(accepted)),
    }
    if good:
        found["good"] = sum(good[n.id] for n in accepted) / max(1, len(accepted))
        found["lost"] = sum(good[n.id] for n in rejected) / max(1, len(made.negatives))
    return found


def _rows(found: dict[str, float], suffix: str) -> list[Row]:
    more = {"accepted": ("accepted", "share of negatives", 0.7), "good": ("good among accepted", "share", 0.9)}
    less = {
        "calls": ("calls per pair", "calls", 6.0),
        "tokens": ("tokens per accepted", "tokens", 5000.0),
        "lost": ("good among rejected", "share of all", 0.1),
    }
    rows = []
    for name, value in found.items():
        metric, unit, goal = (more | less)[name]
        before = _BEFORE[name]
        ratio = value / before if name in more else before / max(value, 1e-9)
        rows.append(Row(f"{metric}{suffix}", unit, value, "prompts and gates before", before, ratio, goal))
    return rows


def _unpack(source: Path, pairs: dict[str, dict[str, list[str]]], folder: Path) -> None:
    """Unpack the source's data sets; the queries that were held out join the train split."""
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    for name, split in pairs.items():
        qrels = next(folder.rglob(f"data/{name}/qrels"))
        test = (qrels / "test.tsv").read_text(encoding="utf-8").splitlines()
        moved = [line for line in test if line.split("\t")[0] in split["from_test"]]
        with (qrels / "train.tsv").open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in moved)
        kept = [line for line in test if line not in moved]
        (qrels / "test.tsv").write_text("\n".join(kept) + "\n", encoding="utf-8")


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, help="rewrite-recorded.zip")
    parser.add_argument("--workspace", type=Path, help="folder to keep the workspaces in")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="a few pairs of the embedded sample, nothing read")
    arguments = parser.parse_args(argv)
    if not arguments.quick and arguments.source is None:
        parser.error("--source rewrite-recorded.zip is needed, unless it is --quick")
    return arguments


def _sample(folder: Path, report: Reporter) -> list[Row]:
    with replaying(RECORDINGS / "rewrite-sample.jsonl.gz") as url:
        made = make("embedded:sample", "generic", url, folder / "workspace", report, _SAMPLE_PAIRS)
    return _rows(figures(made, {}), "")


def _whole(source: Path, folder: Path, report: Reporter) -> list[Row]:
    recording = RECORDINGS / "rewrite"
    pairs = json.loads((recording / "pairs.json").read_text(encoding="utf-8"))
    lines = (recording / "readings.jsonl").read_text(encoding="utf-8").splitlines()
    good = {row["id"]: row["good"] for row in map(json.loads, lines)}
    _unpack(source, pairs, folder)
    with replaying(recording / "answers.jsonl.gz") as url:
        made = [
            make(str(next(folder.rglob(f"data/{name}"))), _PROFILES[name], url, folder / "workspaces" / name, report)
            for name in pairs
        ]
    whole = Made([n for m in made for n in m.negatives], [o for m in made for o in m.outcomes])
    held_out = {query for split in pairs.values() for query in split["held_out"]}
    return _rows(figures(whole, good), "") + _rows(figures(whole.of(held_out), good), ", held-out pairs")


def main() -> None:
    """Run the recorded pairs and publish the figures."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.workspace or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with own_terminal(folder / "rewrite.log") as report:
            rows = _sample(folder, report) if arguments.quick else _whole(arguments.source, folder, report)
            publish("rewrite", rows, report, arguments.results)


if __name__ == "__main__":
    main()
