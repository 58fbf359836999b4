"""The page that shows how a training went, self-contained, from its log."""

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from causalneg.training.log import flat

_BLUE, _ORANGE, _GREEN, _RED, _GREY, _PURPLE = "#2f7fd1", "#d9822b", "#2da44e", "#cf222e", "#8b949e", "#8250df"
_DARK = "#59636e"
_POINTS = 400  # of a line; longer ones are averaged
_DOTTED = 40  # lines of fewer points show them
_TABLE_ROWS = 12
_DEV_MEASURE = "nDCG@10"
_WEIGHTS = {"mined": "weight/mined", "generated": "weight/generated"}

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """A series of the log to draw.

    Attributes:
        field: its name in the log.
        label: its name in the chart.
        band: fields of the lower and the upper end of its interval, if there is one.
    """

    field: str
    label: str
    colour: str
    style: str = "-"
    band: tuple[str, str] | None = None


@dataclass(frozen=True)
class Chart:
    """What a chart shows and how to read it.

    Attributes:
        reading: one sentence for the page.
        kind: of the records that it is drawn from; other records are taken where these have none of its lines.
        reference: value that a dotted line marks.
        best: whether the largest value is marked.
    """

    title: str
    reading: str
    axis: str
    lines: tuple[Line, ...]
    kind: str = "dev"
    reference: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Drawn:
    """A chart as the page shows it."""

    title: str
    reading: str
    svg: str


CHARTS = (
    Chart(
        "Loss",
        "What training minimises, and InfoNCE within it: both should fall and flatten out; where the loss falls on "
        "while nDCG@10 does not rise, the encoder learns the training queries by heart.",
        "loss",
        (Line("loss/total", "loss", _BLUE), Line("loss/info_nce", "InfoNCE", _PURPLE, "--")),
        kind="train",
    ),
    Chart(
        "Parts of the loss",
        "The other parts before their weights: the entropy of the generated negatives is wanted high, the imbalance of "
        "their mass and the distance from a teacher low.",
        "value",
        (
            Line("loss/entropy", "entropy", _ORANGE),
            Line("loss/balance", "balance", _GREY),
            Line("loss/distillation", "distillation", _GREEN),
        ),
        kind="train",
    ),
    Chart(
        "Candidates left out as false negatives",
        "How many candidates of a query score so near its positive that InfoNCE leaves them out: where they are many, "
        "the margin takes the hard negatives away as well.",
        "per query",
        (Line("loss/false_negatives", "left out", _RED),),
        kind="train",
    ),
    Chart(
        "Learning rate",
        "The step size of the optimiser: it rises during warm-up and then follows the schedule, and a jump of the loss "
        "while it is highest is a sign that it is too high.",
        "learning rate",
        (Line("learning_rate", "learning rate", _BLUE),),
        kind="train",
    ),
    Chart(
        "nDCG@10 on dev queries",
        "How well passages are ranked for queries that are not trained on, higher is better: the checkpoint of the "
        "marked evaluation, the first of the best, is the one to keep.",
        "nDCG@10",
        (Line(_DEV_MEASURE, "nDCG@10", _BLUE),),
        best=True,
    ),
    Chart(
        "Similarity to the query",
        "Mean cosine of a query with its positives and its negatives: positives should stand above both kinds of "
        "negatives, and the distance between these two is what a shortcut by source would feed on.",
        "mean cosine",
        (
            Line("diagnostics/positive_cosine", "positives", _BLUE),
            Line("diagnostics/mined_cosine", "mined", _GREY),
            Line("diagnostics/generated_cosine", "generated", _ORANGE),
        ),
    ),
    Chart(
        "Mutual information of source and similarity",
        "How much a negative's similarity tells of whether it was mined or generated, with its 95 % interval: at 0 it "
        "tells nothing, which is what the entropy term is meant to bring about, and it is never above 0.69.",
        "nats",
        (
            Line(
                "diagnostics/mutual_information",
                "mutual information",
                _BLUE,
                band=("diagnostics/mutual_information_low", "diagnostics/mutual_information_high"),
            ),
        ),
        reference=0.0,
    ),
    Chart(
        "AUC of similarity as a classifier of the source",
        "The chance that a generated negative is more similar to its query than a mined one, of any query or of the "
        "same: at 0.5 the sources cannot be told apart, above it generated ones come first, below it mined ones.",
        "AUC",
        (
            Line("diagnostics/auc", "any query", _BLUE),
            Line("diagnostics/within_query_auc", "same query", _ORANGE),
        ),
        reference=0.5,
    ),
    Chart(
        "Generated mass",
        "The share of a query's softmax over its negatives that generated ones take, beside their share in number: the "
        "balance term pulls the first to the second; far above it they are the harder ones, far below they go unheard.",
        "share",
        (
            Line("diagnostics/generated_mass", "mass", _ORANGE),
            Line("diagnostics/expected_mass", "expected", _GREY, "--"),
        ),
    ),
    Chart(
        "Entropy ratio",
        "How evenly a query's generated negatives share their mass: at 1 all count alike, near 0 a single one does all "
        "the work, and the entropy term pulls upwards.",
        "H / log n",
        (Line("diagnostics/entropy_ratio", "entropy ratio", _ORANGE),),
        reference=1.0,
    ),
    Chart(
        "Gradient on the query",
        "The share of InfoNCE's pull on the query that comes from generated negatives, and the cosine of their pull "
        "with that of mined ones: near 1 both pull the same way, near 0 or below generated ones drag it elsewhere.",
        "share, cosine",
        (
            Line("diagnostics/gradient_share", "generated share", _ORANGE),
            Line("diagnostics/gradient_cosine", "cosine with mined", _BLUE),
        ),
        reference=0.0,
    ),
)


# The series


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _having(records: Records, fields: Sequence[str], kind: str) -> Records:
    """Return the records that have one of the fields: those of a kind where there are any, else the others."""
    there = [r for r in records if any(_is_number(r.get(field)) for field in fields)]
    return [r for r in there if r["kind"] == kind] or there


def _series(records: Records, fields: Sequence[str]) -> list[list[float]]:
    """Return steps and values of records that have all fields, averaged over runs of records if they are many."""
    rows = [
        [float(r[name]) for name in ("step", *fields)] for r in records if all(_is_number(r.get(f)) for f in fields)
    ]
    run = math.ceil(len(rows) / _POINTS)
    groups = [rows[at : at + run] for at in range(0, len(rows), run)] if rows else []
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    return [[row[at] for row in means] for at in range(1 + len(fields))]


def best_evaluation(records: Records) -> tuple[int, float] | None:
    """Return step and nDCG@10 of the best evaluation, the first of equals; None where there was none."""
    found = [(r["step"], float(r[_DEV_MEASURE])) for r in records if _is_number(r.get(_DEV_MEASURE))]
    return max(found, key=lambda point: point[1], default=None)


def weights(records: Records) -> list[tuple[int, list[float | None]]]:
    """Return some steps with the mean weights of mined and of generated negatives there, first and last included."""
    there = _having(records, tuple(_WEIGHTS.values()), "train")
    last = len(there) - 1
    chosen = sorted({round(at * last / (_TABLE_ROWS - 1)) for at in range(_TABLE_ROWS)}) if there else []
    values = [[there[at].get(field) for field in _WEIGHTS.values()] for at in chosen]
    return [
        (there[at]["step"], [float(v) if _is_number(v) else None for v in row])  # type: ignore[arg-type]
        for at, row in zip(chosen, values, strict=True)
    ]


# The charts


def draw(chart: Chart, records: Records) -> str:
    """Draw a chart as SVG; nothing where the log has none of its lines."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = _having(records, [line.field for line in chart.lines], chart.kind)
    if not shown:
        return ""
    # The salt makes the page the same every time, and the ids of its charts differ.
    with rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": chart.title, "font.size": 11, "axes.unicode_minus": False}
    ):
        figure = Figure(figsize=(6.4, 3.2), layout="tight")
        axes = figure.subplots()
        if chart.reference is not None:
            axes.axhline(chart.reference, color=_DARK, linewidth=1, linestyle=":")
        for line in chart.lines:
            steps, values = _series(shown, (line.field,))
            if not steps:
                continue
            dot = "o" if len(steps) < _DOTTED else None
            axes.plot(steps, values, line.style, label=line.label, color=line.colour, marker=dot, markersize=3.5)
            if line.band:
                steps, low, high = _series(shown, line.band)
                axes.fill_between(steps, low, high, color=line.colour, alpha=0.18, linewidth=0)
        best = best_evaluation(shown) if chart.best else None
        if best:
            axes.plot(
                [best[0]], [best[1]], "o", color=_GREEN, markersize=9, label=f"best: {best[1]:.4f}, step {best[0]}"
            )
        axes.set_xlim(0, 1.02 * max(1, *(r["step"] for r in records)))  # the same in every chart
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(chart.axis)
        if len(chart.lines) > 1 or best:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9, borderaxespad=0)
        axes.spines[["top", "right"]].set_visible(False)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None})
    drawn = sink.getvalue()
    # Groups have the same names in every chart, and a page must have each but once; nothing refers to them.
    return re.sub(r'<g id="[^"]*"', "<g", drawn[drawn.index("<svg") :])


# The page


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def tables(summary: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return a table for each group of the summary, by its name, and one without a name for what is in none."""
    alone = {name: _shown(value) for name, value in summary.items() if not isinstance(value, Mapping)}
    groups = {
        name: {inner: _shown(v) for inner, v in flat(value, ".").items()}
        for name, value in summary.items()
        if isinstance(value, Mapping)
    }
    return {name: rows for name, rows in {"": alone, **groups}.items() if rows}


def page(records: Records, summary: Mapping[str, Any]) -> str:
    """Return the training as one HTML page that needs nothing else; what the log lacks is left out.

    Args:
        records: of the training log, in their order.
        summary: settings and figures; each mapping in it is a table of its own, inner mappings by dotted names.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    drawn = [Drawn(chart.title, chart.reading, draw(chart, records)) for chart in CHARTS]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("causalneg.training").joinpath("training.html.j2").read_text("utf-8"))
    return template.render(
        steps=max((r["step"] for r in records), default=0),
        epochs=max((r["epoch"] for r in records if _is_number(r.get("epoch"))), default=None),
        best=best_evaluation(records),
        # Drawn from numbers and our own words.
        charts=[Drawn(c.title, c.reading, Markup(c.svg)) for c in drawn if c.svg],  # noqa: S704
        sources=list(_WEIGHTS),
        weights=weights(records),
        tables=tables(summary),
    )
