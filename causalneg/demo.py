"""The demo: all stages on the embedded sample, a few negatives to read, and questions put to the server."""

import random
import time

import httpx
from rich.text import Text

from causalneg import pipeline
from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.generation.reporting.difference import abridged, marked
from causalneg.records import Negative, Passage, Qrel, Query
from causalneg.runtime import ray_session
from causalneg.serving.run import serving
from causalneg.workspace import Workspace

_EXAMPLES = 3
_QUESTIONS = 3
_CONTEXT = 25  # words shown around a change, and at the ends of it


def shown(negative: Negative, positive: Passage) -> Text:
    """Show the difference to the positive: what was taken out struck through in red, what was put in in green."""
    out = Text()
    for piece in abridged(marked(positive.text, negative.text), _CONTEXT):
        if piece.kind == "removed":
            out.append(f"[-{piece.text.strip()}-]", "strike red")
        elif piece.kind == "inserted":
            out.append(f"[+{piece.text.strip()}+]", "bold green").append(" " if piece.text[-1].isspace() else "")
        else:
            out.append(piece.text)
    return out


def show_negatives(workspace: Workspace, report: Reporter, seed: int) -> None:
    """Print a few accepted negatives of different queries, with the broken requirement and the edit marked."""
    accepted = [n for n in workspace.read_rows("negatives", Negative) if n.verdict == "accepted"]
    by_query = {n.query_id: n for n in random.Random(seed).sample(accepted, len(accepted))}  # noqa: S311
    chosen = list(by_query.values())[:_EXAMPLES]
    positives = workspace.passages({n.positive_id for n in chosen})
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query)}
    report.line(f"\n{len(chosen)} of the {len(accepted)} accepted negatives", style="bold")
    for negative in chosen:
        report.line(f"\nquery        {queries[negative.query_id]}")
        report.line(f"broken       {negative.requirement} ({negative.violation})")
        report.console.print(Text("negative     ").append_text(shown(negative, positives[negative.positive_id])))


def ask(url: str, workspace: Workspace, report: Reporter, split: str) -> None:
    """Put a few questions of the test split to the server, all in one request, and print the answers."""
    held_out = {q.query_id for q in workspace.read_rows("qrels", Qrel) if q.split == split}
    questions = [q.text for q in workspace.read_rows("queries", Query) if q.id in held_out][:_QUESTIONS]
    started = time.perf_counter()
    with httpx.Client(trust_env=False, timeout=60) as client:  # a proxy of the environment is for other hosts
        answer = client.post(f"{url}/v1/search", json={"queries": questions, "limit": 2}).raise_for_status()
    took = (time.perf_counter() - started) * 1000
    report.line(f"\nPOST {url}/v1/search with {len(questions)} queries took {took:.0f} ms", style="bold")
    for question, hits in zip(questions, answer.json()["results"], strict=True):
        report.line(f"\nquery        {question}")
        for hit in hits:
            report.line(f"  {hit['score']:.3f}      {hit['payload']['title']}: {hit['payload']['text'][:90]}…")


def run(config: Config, workspace: Workspace, report: Reporter) -> None:
    """Run the demo.

    Raises:
        UserError: a stage met the user's mistake, or the port is taken.
    """
    started = time.perf_counter()
    with ray_session():
        manifests = pipeline.run(config, workspace, report)
        show_negatives(workspace, report, config.seed)
        with serving(config, workspace, report) as url:
            ask(url, workspace, report, config.evaluate.split)
    report.line("\nserver stopped")
    results = manifests[-1].details
    before, after = results["base"]["nDCG@10"], results["trained"]["nDCG@10"]
    report.line(
        f"\nnDCG@10 on the {config.evaluate.split} split: {before:.4f} before, {after:.4f} after training "
        f"({after - before:+.4f})",
        style="bold green" if after > before else "bold yellow",
    )
    report.line(
        f"Everything is in {workspace.root} (report/index.html to look at); the demo took "
        f"{time.perf_counter() - started:.0f} s."
    )
