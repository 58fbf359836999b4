"""Rows per second and peak memory of training, against sentence-transformers' trainer on the same rows.

    python -m benchmarks.training --source squad.zip

A row is a query with its positive and 18 passages mined for it; the last three of them stand in for generated ones,
since what they say changes nothing here. Rows share no passage, so that every passage of a batch is a candidate once on
both sides: in-batch candidates, batches of 16 rows, no entropy term, all-MiniLM-L6-v2 with 256 tokens at most, its
dropout off on both sides. `loss at step 0` shows that both compute the same.

Ours is `causalneg train` as a user runs it; the peers are `SentenceTransformerTrainer` with
`MultipleNegativesRankingLoss` and with the cached one (mini-batches of 32, its default), fp32 as it is by default, and
bf16. The first step of each run does not count. Memory is the largest of the process that trains. `two workers` is two
workers with a thread each against one with two threads; `little held` is ours with 0.5 GiB for activations
instead of 2. Where there is a GPU, all run on it, with one worker.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, Row, publish
from benchmarks.experiment.given import given_negative
from causalneg.config import load_config
from causalneg.console import Reporter, own_terminal
from causalneg.mining.run import run as mine
from causalneg.records import (
    Mined,
    Negative,
    Passage,
    Qrel,
    Query,
    content_id,
)
from causalneg.sources.run import run as import_data
from causalneg.workspace import Counts, Workspace

_BATCH, _MINED, _GENERATED, _LENGTH = 16, 15, 3, 256
_STEPS, _QUICK_STEPS = 6, 2
_QUICK_BATCH = 2
_ENCODER = "embedded:minilm-l6"
_PEERS = {
    "default": ("MultipleNegativesRankingLoss", False),
    "bf16": ("MultipleNegativesRankingLoss", True),
    "cached": ("CachedMultipleNegativesRankingLoss", False),
    "cached, bf16": ("CachedMultipleNegativesRankingLoss", True),
}
_LITTLE = 0.5  # GiB for activations where memory is short


@dataclass(frozen=True)
class Side:
    """How one of our runs is made: workers, threads of each, precision, GiB for activations."""

    workers: int = 1
    threads: int = 2
    precision: str = "auto"
    held_gib: float | None = None


_OURS = {
    "one worker": Side(),
    "two workers": Side(workers=2, threads=1),
    "one worker, little held": Side(held_gib=_LITTLE),
    "one worker, fp32": Side(precision="fp32"),
}
_NAMES = {
    name: f"SentenceTransformerTrainer, {loss}, {'bf16' if bf16 else 'fp32'}" for name, (loss, bf16) in _PEERS.items()
}


@dataclass(frozen=True)
class Measured:
    """What one run of a side gave: rows per second, peak memory in GiB, the loss of the first batch."""

    pace: float
    memory: float
    loss: float


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="embedded:sample", help="data set, as for `causalneg import`")
    parser.add_argument("--queries", type=int, default=3000, help="train queries of which rows are chosen")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each side, taking turns; the median counts")
    parser.add_argument("--workspace", type=Path, help="folder to work in; a temporary one when unset")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="two steps, one of our runs, two of the peers")
    parser.add_argument("--peer", choices=list(_PEERS), help=argparse.SUPPRESS)
    return parser.parse_args()


def _chosen(workspace: Workspace, rows: int, quick: bool) -> list[tuple[str, list[str]]]:
    """Choose queries none of whose passages is another's; each with its positive and what was mined."""
    by_query: dict[str, list[str]] = {q: [p[0]] for q, p in workspace.positives("train").items()}
    for row in workspace.read_rows("mined", Mined):
        if row.verdict == "accepted":
            by_query[row.query_id].append(row.passage_id)
    taken: set[str] = set()
    found = []
    for query, passages in by_query.items():
        whole = len(passages) == 1 + _MINED + _GENERATED
        if whole and (quick or not taken & set(passages)):  # the sample is too small for rows that share nothing
            taken |= set(passages)
            found.append((query, passages))
    return found[:rows]


def prepare(folder: Path, source: str, queries: int, quick: bool, report: Reporter) -> Workspace:
    """Import and mine, and write a workspace of the rows that are trained on."""
    flags: dict[str, Any] = {
        "workspace": str(folder / "all"),
        "import.source": source,
        "import.max_train_queries": queries,
        "mine.num_negatives": _MINED + _GENERATED,
        "mine.search.sources": ["dense"],
        "mine.relative_margin": None,
        "mine.near_duplicate": None,
    }
    config = load_config(None, flags)
    everything, chosen = Workspace(str(folder / "all")), Workspace(str(folder / "chosen"))
    import_data(config, everything, report)
    mine(config, everything, report)
    rows = _chosen(everything, _QUICK_STEPS * _QUICK_BATCH if quick else _STEPS * _BATCH, quick)
    texts = {q.id: q.text for q in everything.read_rows("queries", Query)}
    passages = everything.passages({p for _, own in rows for p in own})

    stage = chosen.begin("import", {"import": {"source": source}}, [])
    if stage.done:
        return chosen
    stage.workspace.write_rows("corpus", "part-0", Passage, passages.values())
    stage.workspace.write_rows("queries", "part-0", Query, [Query(id=q, text=texts[q]) for q, _ in rows])
    stage.workspace.write_rows("qrels", "part-0", Qrel, [Qrel(query_id=q, passage_id=own[0]) for q, own in rows])
    stage.finish(Counts(rows_in=len(rows), accepted=len(rows)))
    stage = chosen.begin("mine", {}, ["import"])
    mined = [
        Mined(query_id=q, passage_id=p, dense_score=0, positive_score=0, verdict="accepted")
        for q, own in rows
        for p in own[1 : 1 + _MINED]
    ]
    stage.workspace.write_rows("mined", "part-0", Mined, mined)
    stage.finish(Counts(rows_in=len(rows), accepted=len(rows)))
    stage = chosen.begin("generate", {}, ["import", "mine"])
    stage.workspace.write_rows(
        "negatives", "part-0", Negative, [n for q, own in rows for n in _stand_ins(q, own, passages)]
    )
    stage.finish(Counts(rows_in=len(rows), accepted=len(rows)))
    return chosen


def _stand_ins(query: str, own: Sequence[str], passages: dict[str, Passage]) -> list[Negative]:
    return [
        given_negative(query, passages[own[0]], passages[p].text, "", id=content_id(query, p), title=passages[p].title)
        for p in own[1 + _MINED :]
    ]


def ours(workspace: Workspace, side: Side, batch: int, log: Path) -> Measured:
    """Run `causalneg train` and read its log and its manifest."""
    import torch

    flags = {
        "workspace": workspace.root,
        "encoder": _ENCODER,
        "epochs": 1,
        "batch-size": batch,
        "loss.candidates": "in_batch" if side.workers == 1 else "global",
        "loss.share-generated": "true",
        "loss.entropy-weight": 0,
        "encoder.query-length": _LENGTH,
        "encoder.passage-length": _LENGTH,
        "dev.share": 0,
        "log-every": 1,
        "workers": side.workers,
        "threads": side.threads,
        "precision": side.precision,
        "held-gib": "null" if side.held_gib is None else side.held_gib,
        "gpu": str(torch.cuda.is_available()).lower(),
    }
    workspace.remove("manifests/train.json")
    command = [
        sys.executable,
        "-m",
        "causalneg.cli",
        "train",
        *(w for n, v in flags.items() for w in (f"--{n}", str(v))),
    ]
    with log.open("ab") as sink:
        subprocess.run(command, check=True, stdout=sink, stderr=sink)  # noqa: S603 - our own
    records = [json.loads(line) for line in workspace.read_bytes("training/log.jsonl").splitlines()]
    steps = [r for r in records if r["kind"] == "train"]
    details = workspace.require("train").details
    pace = len(steps[1:]) / sum(1 / r["rows_per_second"] for r in steps[1:])
    return Measured(pace, details["peak_memory_gib"], steps[0]["loss/total"])


def _columns(workspace: Workspace) -> dict[str, list[str]]:
    """Return the rows as columns, in the order in which ours takes them."""
    from causalneg.examples import read_selection, read_texts
    from causalneg.training.data.order import row_order

    rows = read_selection(workspace, _MINED, _GENERATED).rows
    rows = [rows[i] for i in row_order(len(rows), 0, 0)]
    texts = read_texts(workspace, rows)
    columns = {
        "anchor": [texts.queries[r.query_id] for r in rows],
        "positive": [texts.passages[r.positive_id].full_text for r in rows],
    }
    for n in range(_MINED):
        columns[f"negative_{n + 1}"] = [texts.passages[r.mined[n]].full_text for r in rows]
    for n in range(_GENERATED):
        columns[f"negative_{_MINED + n + 1}"] = [texts.generated[r.generated[n]].full_text for r in rows]
    return columns


def be_peer(name: str, workspace: Workspace, batch: int) -> None:
    """Train with sentence-transformers in this process and print what was measured as JSON."""
    import time

    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.training_args import SentenceTransformerTrainingArguments
    from transformers import TrainerCallback

    from causalneg.models import resolve

    loss_name, bf16 = _PEERS[name]
    columns = _columns(workspace)
    model = SentenceTransformer(str(resolve(_ENCODER).path), local_files_only=True)
    model.max_seq_length = _LENGTH
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = getattr(losses, loss_name)(model)

    with torch.no_grad():  # the same rows as our first batch
        model.eval()
        features = [model.preprocess(texts[:batch]) for texts in columns.values()]
        features = [
            {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in f.items()} for f in features
        ]
        uncached = losses.MultipleNegativesRankingLoss(model)
        first = float(uncached(features, torch.empty(0)))

    class Clock(TrainerCallback):
        """Notes when each step ends."""

        ends: list[float] = []

        def on_step_end(self, *_: object, **__: object) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=batch,
                bf16=bf16,
                use_cpu=not torch.cuda.is_available(),
                learning_rate=5e-5,
                warmup_steps=0.1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=loss,
            callbacks=[Clock()],
        )
        trainer.train()
    ends = Clock.ends
    pace = batch * (len(ends) - 1) / (ends[-1] - ends[0])
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 1024 * int(peak[1] if peak else 0)
    sys.stdout.write(json.dumps({"pace": pace, "memory": memory / 1024**3, "loss": first}) + "\n")


def peer(name: str, folder: Path, quick: bool, log: Path) -> Measured:
    """Train with sentence-transformers in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "--peer", name, "--workspace", str(folder)]
    command += ["--quick"] * quick
    with log.open("ab") as sink:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=sink)  # noqa: S603 - our own
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _median(runs: list[Measured]) -> Measured:
    return Measured(*(statistics.median(getattr(r, f) for r in runs) for f in ("pace", "memory", "loss")))


def rows_of(found: dict[str, Measured]) -> list[Row]:
    """Return the table."""
    one = found["one worker"]
    goals = {"default": ("rows/s against its default", 2.0), "bf16": ("rows/s against its bf16", 1.5)}
    rows = []
    for name in (n for n in _PEERS if n in found):
        metric, goal = goals.get(name, (f"rows/s against {name}", None))
        theirs = found[name]
        rows.append(Row(metric, "rows/s", one.pace, _NAMES[name], theirs.pace, one.pace / theirs.pace, goal))
    for name in (n for n in _PEERS if n in found):
        theirs = found[name]
        metric = "peak memory" if name == "default" else f"peak memory against {name}"
        rows.append(Row(metric, "GiB", one.memory, _NAMES[name], theirs.memory, theirs.memory / one.memory))
    little, cached = found.get("one worker, little held"), found.get("cached, bf16")
    if little and cached:
        name, ratio = _NAMES["cached, bf16"], cached.memory / little.memory
        rows.append(Row("peak memory, little held", "GiB", little.memory, name, cached.memory, ratio))
        ratio = little.pace / cached.pace
        rows.append(Row("rows/s, little held", "rows/s", little.pace, name, cached.pace, ratio))
    if "two workers" in found:
        two = found["two workers"]
        rows.append(Row("two workers", "rows/s", two.pace, "one worker", one.pace, two.pace / one.pace, 0.85))
    if exact := found.get("one worker, fp32"):
        theirs = found["default"]
        name, ratio = _NAMES["default"], exact.pace / theirs.pace
        rows.append(Row("rows/s, both fp32", "rows/s", exact.pace, name, theirs.pace, ratio))
        ratio = theirs.loss / exact.loss
        rows.append(Row("loss at step 0, both fp32", "nats", exact.loss, name, theirs.loss, ratio, 1.0))
    return rows


def main() -> None:
    """Measure all sides in turn and publish the table."""
    arguments = _arguments()
    folder = arguments.workspace or Path(tempfile.mkdtemp(prefix="causalneg-training-"))
    batch = _QUICK_BATCH if arguments.quick else _BATCH
    if arguments.peer:
        be_peer(arguments.peer, Workspace(str(folder / "chosen")), batch)
        return
    import torch

    names = [*_PEERS][: 2 if arguments.quick else None]
    sides = [n for n in _OURS if not torch.cuda.is_available() or n != "two workers"]
    sides = sides[: 1 if arguments.quick else None]
    log = folder / "runs.log"
    found: dict[str, list[Measured]] = {}
    with own_terminal(folder / "logs" / "training.log") as report:
        workspace = prepare(folder, arguments.source, arguments.queries, arguments.quick, report)
        for _ in range(1 if arguments.quick else arguments.repeats):
            for side in sides:
                found.setdefault(side, []).append(ours(workspace, _OURS[side], batch, log))
                report.line(f"{side}: {found[side][-1]}")
            for name in names:
                found.setdefault(name, []).append(peer(name, folder, arguments.quick, log))
                report.line(f"{name}: {found[name][-1]}")
        publish("training", rows_of({n: _median(r) for n, r in found.items()}), report, arguments.results)


if __name__ == "__main__":
    main()
