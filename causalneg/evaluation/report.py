"""The evaluation as one self-contained HTML page, and run files in TREC format."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from causalneg.evaluation.metrics import Run, ranked

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #1b1f24; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .9rem; border-bottom: 1px solid #d5dae0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
article { border: 1px solid #d5dae0; border-radius: 6px; padding: .6rem 1rem; margin: .8rem 0; }
article h3 { margin: 0 0 .4rem; font-size: 1rem; }
article p { margin: .2rem 0; }
.yes { color: #116329; } .no { color: #a40e26; } .dim { color: #59636e; }
"""
_TEXT_CHARACTERS = 300


@dataclass(frozen=True)
class TopHit:
    """The first passage that an encoder finds for a query."""

    text: str
    relevant: bool


@dataclass(frozen=True)
class Change:
    """A query with its value under both encoders."""

    query: str
    base: float
    trained: float
    base_hit: TopHit
    trained_hit: TopHit


def _trec_field(text: str) -> str:
    """Return an id as one field of a TREC line: white space and control characters percent-encoded."""
    return "".join(quote(c) if c.isspace() or not c.isprintable() else c for c in text) or "%00"


def trec_lines(run: Run, tag: str) -> str:
    """Return a run in TREC format: query, Q0, passage, rank from 1, score, tag."""
    lines = []
    for query, scores in run.items():
        for rank, passage in enumerate(ranked(scores), 1):
            fields = [_trec_field(query), "Q0", _trec_field(passage), str(rank)]
            lines.append(" ".join([*fields, f"{scores[passage]:.9g}", tag]))
    return "".join(line + "\n" for line in lines)


def table_rows(base: Mapping[str, float], trained: Mapping[str, float]) -> list[list[str]]:
    """Return one row per measure: name, before, after, difference."""
    return [[name, f"{base[name]:.4f}", f"{trained[name]:.4f}", f"{trained[name] - base[name]:+.4f}"] for name in base]


def _hit(name: str, hit: TopHit) -> str:
    text = hit.text if len(hit.text) <= _TEXT_CHARACTERS else hit.text[:_TEXT_CHARACTERS] + "…"
    mark = '<span class="yes">relevant</span>' if hit.relevant else '<span class="no">not judged relevant</span>'
    return f"<p><b>{name}</b> ({mark}): {html.escape(text)}</p>"


def _article(change: Change) -> str:
    return (
        f"<article><h3>{html.escape(change.query)} "
        f'<span class="dim">{change.base:.3f} → {change.trained:.3f}</span></h3>'
        f"{_hit('before', change.base_hit)}{_hit('after', change.trained_hit)}</article>"
    )


def _section(title: str, changes: Sequence[Change], none: str) -> str:
    return f"<h2>{title}</h2>" + ("".join(_article(change) for change in changes) or f"<p>{none}</p>")


def page(
    summary: str,
    rows: Sequence[Sequence[str]],
    measure: str,
    improved: Sequence[Change],
    worse: Sequence[Change],
) -> str:
    """Return the page: the table before and after, and queries whose `measure` changed most."""
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    by = html.escape(measure)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>causalneg evaluation</title>'
        f"<style>{_STYLE}</style></head><body><h1>Evaluation</h1><p>{html.escape(summary)}</p>"
        "<table><thead><tr><th>measure</th><th>before</th><th>after</th><th>difference</th></tr></thead>"
        f"<tbody>{cells}</tbody></table>"
        + _section(f"Most improved by {by}", improved, "No query improved.")
        + _section(f"Most worsened by {by}", worse, "No query got worse.")
        + "</body></html>\n"
    )
