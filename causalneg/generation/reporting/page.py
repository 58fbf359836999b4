"""The page that shows a generation report, self-contained."""

import io
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from causalneg.generation.reporting.difference import abridged, marked, shortened
from causalneg.generation.reporting.examples import by_verdict, evidenced
from causalneg.generation.reporting.leakage import STRONG_AUC, LeakageReport, Probe
from causalneg.generation.reporting.report import GenerationReport, Histogram, duration, summary
from causalneg.generation.select import ACCEPTED, MEANINGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#2f7fd1", "#d9822b", "#2da44e", "#cf222e", "#8b949e"
_SPACING = {"fontsize": 9, "borderaxespad": 0, "columnspacing": 1.0, "handlelength": 1.3, "handletextpad": 0.4}
_LONGEST = 400  # words of a stretch of text shown at its beginning, and at its end: bounds the page
_JUDGES = {"yes_no": "asked yes or no", "likelihood": "by likelihood"}


def meaning(gate: str) -> str:
    """Return what it means to be rejected by a gate, or its name where nobody wrote that down."""
    return MEANINGS.get(gate, plain(gate))


def judging(judge: str) -> str:
    """Return a way to judge as words."""
    return _JUDGES.get(judge, plain(judge))


def plain(name: str) -> str:
    """Return an internal name as words."""
    return name.replace("_", " ")


# Charts


def _svg(figure: "Figure") -> str:
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    drawn = sink.getvalue()
    # Groups have the same names in every chart, and a page must have each but once; nothing refers to them.
    return re.sub(r'<g id="[^"]*"', "<g", drawn[drawn.index("<svg") :])


def _probes(leakage: LeakageReport) -> list[tuple[float, str, Probe, str]]:
    """Return the probes that there are, each with its place, name and colour; groups stand apart."""
    groups: list[list[tuple[str, Probe | None, str]]] = [
        [
            ("all, by embedding", leakage.overall, _BLUE),
            ("all, by surface", leakage.surface, _ORANGE),
            ("positives, for comparison", leakage.positives, _GREY),
        ]
    ]
    for kinds in (leakage.by_mode, leakage.by_violation, leakage.by_operation):
        groups.append([(plain(name), probe, _BLUE) for name, probe in kinds.items() if len(kinds) > 1])
    rows, place = [], 0.0
    for group in groups:
        there = [(name, probe, colour) for name, probe, colour in group if probe]
        rows += [(place + at, name, probe, colour) for at, (name, probe, colour) in enumerate(there)]
        place += len(there) + (0.5 if there else 0)
    return rows


def too_few(leakage: LeakageReport) -> list[str]:
    """Return the kinds of negatives that there are too few of to probe."""
    kinds = leakage.by_mode | leakage.by_violation | leakage.by_operation
    return [plain(name) for name, probe in kinds.items() if probe is None]


def leakage_chart(leakage: LeakageReport) -> str:
    """Draw every probe's AUC with its 95 % interval, as SVG; nothing where there is no probe."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = _probes(leakage)
    if not rows:
        return ""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "leakage", "font.size": 11}):
        last = rows[-1][0]
        figure = Figure(figsize=(10, 1.2 + 0.32 * last), layout="tight")
        axes = figure.subplots()
        axes.axvspan(STRONG_AUC, 1.02, color=_RED, alpha=0.07, linewidth=0)
        axes.axvline(0.5, color=_GREY, linewidth=1, linestyle="--")
        for at, _, probe, colour in rows:
            axes.plot([probe.low, probe.high], [at, at], color=colour, linewidth=2.5, solid_capstyle="round")
            axes.plot([probe.auc], [at], "o", color=colour, markersize=7)
            axes.annotate(f"{probe.auc:.2f}", (1.03, at), va="center", annotation_clip=False)
        axes.set_yticks([at for at, *_ in rows], [name for _, name, *_ in rows])
        axes.set_ylim(last + 0.6, -0.6)
        axes.set_xlim(min([0.4, *(probe.low for _, _, probe, _ in rows)]), 1.02)
        axes.set_xlabel("AUC: 0.5 cannot be told apart, 1 always; shaded: strong leakage")
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        return _svg(figure)


def _draw(axes: Any, histogram: Histogram, joined: int) -> None:  # noqa: ANN401 - matplotlib has no types
    groups = {"mined": (histogram.mined, _GREY), "rejected": (histogram.rejected, _ORANGE)}
    groups["accepted"] = (histogram.accepted, _BLUE)
    for name, (counts, colour) in groups.items():
        total = sum(counts)
        if total:
            shares = [100 * sum(counts[at : at + joined]) / total for at in range(0, len(counts), joined)]
            axes.stairs(shares, histogram.edges[::joined], label=name, color=colour, fill=True, alpha=0.45)


def scores_chart(report: GenerationReport) -> str:
    """Draw hardness and relative score of accepted, rejected and mined negatives, as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "scores", "font.size": 11}):
        figure = Figure(figsize=(10, 3.4), layout="tight")
        left, right = figure.subplots(1, 2)
        _draw(left, report.hardness, 2)
        left.axhline(100 * 2 / len(report.hardness.accepted), color=_GREY, linestyle="--", linewidth=1, label="mined")
        left.set_xlabel("hardness: share of mined scoring lower")
        left.set_ylabel("% of the group")
        _draw(right, report.relative_score, 1)
        right.axvline(1, color=_GREEN, linestyle="--", linewidth=1.5, label="the positive")
        right.set_xlabel("score as a share of the positive's")
        right.set_xlim(*_used(report.relative_score))
        for axes in (left, right):
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, **_SPACING)
            axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def _used(histogram: Histogram) -> tuple[float, float]:
    """Return the range of a histogram that has counts, and 1."""
    counts = zip(histogram.accepted, histogram.rejected, histogram.mined, strict=True)
    used = [at for at, bins in enumerate(counts) if any(bins)]
    edges = histogram.edges
    return (min(edges[used[0]], 0.95), max(edges[used[-1] + 1], 1.05)) if used else (edges[0], edges[-1])


# The page


def page(report: GenerationReport) -> str:
    """Return the report as one HTML page that needs nothing else."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": plain, "meaning": meaning, "judging": judging, "count": "{:,}".format}
    environment.filters |= {"abridged": abridged, "shortened": shortened}
    template = environment.from_string(
        files("causalneg.generation.reporting").joinpath("report.html.j2").read_text("utf-8")
    )
    leakage = report.leakage
    shown = by_verdict(report.examples)
    return template.render(
        report=report,
        rows=summary(report),
        duration=duration,
        marked=marked,
        evidenced=evidenced,
        gates=sorted({gate for one in report.examples for gate in one.gates}),
        violations=sorted({one.negative.violation for one in report.examples}),
        examples={gate: shown[gate] for gate in sorted(report.verdicts, key=ACCEPTED.__ne__) if gate in shown},
        LONGEST=_LONGEST,
        leakage_chart=Markup(leakage_chart(leakage)) if leakage else "",  # noqa: S704 - drawn from numbers and kinds
        too_few=too_few(leakage) if leakage else [],
        scores_chart=Markup(scores_chart(report)),  # noqa: S704 - drawn from numbers alone
        ACCEPTED=ACCEPTED,
    )
