"""The page that shows a mining report, self-contained."""

import io
import random
from collections import defaultdict
from importlib.resources import files

from causalneg.mining.report import Example, Histogram, MiningReport
from causalneg.records import Mined, Query
from causalneg.workspace import Workspace

_JOINED = 4  # bins of the report drawn as one
_EXAMPLES = 4
_SHOWN = 3  # negatives kept, and candidates left out, per example

# What each reason means, in the page's words.
REASONS = {
    "accepted": "kept as a negative",
    "known_positive": "judged relevant to the query",
    "min_score": "scores below the least score",
    "max_score": "scores above the largest score",
    "absolute_margin": "scores too near the positive, or above it",
    "relative_margin": "scores too near the positive, or above it, as a share of its score",
    "rank_range": "ranks outside the range",
    "duplicate_of_positive": "nearly the words of a positive",
    "duplicate_of_negative": "nearly the words of a better negative",
    "num_negatives": "passed, but enough others were taken",
    "nothing_found": "no search found a candidate",
}


def examples(workspace: Workspace, seed: int) -> list[Example]:
    """Return a few queries, drawn by seed, with what was kept and left out for them."""
    positives = workspace.positives("train")
    chosen = set(random.Random(seed).sample(sorted(positives), min(_EXAMPLES, len(positives))))  # noqa: S311
    rows: dict[str, list[Mined]] = defaultdict(list)
    for row in workspace.read_rows("mined", Mined):
        if row.query_id in chosen:
            rows[row.query_id].append(row)
    kept = {q: [r for r in rows[q] if r.verdict == "accepted"][:_SHOWN] for q in chosen}
    out = {
        q: [r for r in rows[q] if r.rejected_by not in (None, "num_negatives", "known_positive")][:_SHOWN]
        for q in chosen
    }
    wanted = {p for q in chosen for p in positives[q]} | {r.passage_id for q in chosen for r in (*kept[q], *out[q])}
    text_of = {i: p.full_text for i, p in workspace.passages(wanted).items()}
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query) if q.id in chosen}
    return [
        Example(
            query=queries[q],
            positives=[text_of[p] for p in positives[q]],
            kept=[(r.score, text_of[r.passage_id]) for r in kept[q]],
            rejected=[(str(r.rejected_by), r.score, text_of[r.passage_id]) for r in out[q]],
        )
        for q in sorted(chosen)
    ]


def chart(scores: Histogram) -> str:
    """Draw the shares of positives, candidates and kept negatives by score, as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    groups = {"candidates": scores.candidates, "kept negatives": scores.kept, "positives": scores.positives}
    colours = ("#8b949e", "#d9822b", "#2f7fd1")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mining", "font.size": 11}):
        figure = Figure(figsize=(8, 3.2), layout="tight")
        axes = figure.subplots()
        for (name, counts), colour in zip(groups.items(), colours, strict=True):
            total = sum(counts) or 1
            shares = [100 * sum(counts[at : at + _JOINED]) / total for at in range(0, len(counts), _JOINED)]
            axes.stairs(shares, scores.edges[::_JOINED], label=name, color=colour, fill=True, alpha=0.5)
        used = [at for counts in groups.values() for at, count in enumerate(counts) if count]
        if used:
            axes.set_xlim(scores.edges[min(used)], scores.edges[max(used) + 1])
        axes.set_xlabel("score")
        axes.set_ylabel("% of the group")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()[sink.getvalue().index("<svg") :]


def page(report: MiningReport, shown: list[Example]) -> str:
    """Return the report as one HTML page that needs nothing else."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("causalneg.mining").joinpath("report.html.j2").read_text("utf-8"))
    picture = Markup(chart(report.scores))  # noqa: S704 - drawn from numbers alone
    return template.render(report=report, examples=shown, reasons=REASONS, chart=picture)
