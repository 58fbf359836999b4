"""A self-contained HTML page made of sections; each section escapes the texts that it shows."""

from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup

from causalneg.evaluation.changes import Change, TopHit

_STYLE = Markup("""
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #1b1f24; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem; border-bottom: 1px solid #d5dae0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
article { border: 1px solid #d5dae0; border-radius: 6px; padding: .6rem 1rem; margin: .8rem 0; }
article h3 { margin: 0 0 .4rem; font-size: 1rem; }
article p { margin: .2rem 0; }
svg { display: block; max-width: 100%; height: auto; }
.yes { color: #116329; } .no { color: #a40e26; } .dim { color: #59636e; font-size: .9rem; }
""")
_TEXT_CHARACTERS = 300
_WIDTH, _HEIGHT, _MARGIN = 640, 180, 44  # of a curve, pixels; the margin is at the left, for the numbers


def page(title: str, sections: Iterable[Markup]) -> str:
    """Return the page: its title, then the sections."""
    return Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>causalneg: {title}</title>'
        "<style>{style}</style></head><body><h1>{title}</h1>\n{body}</body></html>\n"
    ).format(title=title, style=_STYLE, body=Markup("\n").join(sections))


def paragraph(text: str) -> Markup:
    """Return a paragraph."""
    return Markup("<p>{}</p>").format(text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> Markup:
    """Return a table with a note below it; columns after the first are aligned to the right."""
    cell, head, line = Markup("<td>{}</td>"), Markup("<th>{}</th>"), Markup("<tr>{}</tr>")
    body = Markup("").join(line.format(Markup("").join(cell.format(c) for c in row)) for row in rows)
    columns = Markup("").join(head.format(name) for name in header)
    below = Markup('<p class="dim">{}</p>').format(note) if note else Markup("")
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}").format(columns, body, below)


def curve(title: str, differences: Sequence[float]) -> Markup:
    """Draw the differences of all queries from the largest to the smallest, as an area around zero."""
    values = np.sort(np.asarray(differences, np.float64))[::-1]
    if len(values) > _WIDTH:  # one for each pixel
        values = values[np.linspace(0, len(values) - 1, _WIDTH).round().astype(int)]
    extent = float(np.abs(values).max()) or 1.0
    step, middle = _WIDTH / len(values), _HEIGHT / 2
    heights = middle - values / extent * (middle - 10)

    def area(edge: np.ndarray) -> str:
        steps = " ".join(f"V{y:.1f} H{_MARGIN + at * step:.1f}" for at, y in enumerate(edge, 1))
        return f"M{_MARGIN} {middle:.1f} {steps} V{middle:.1f} Z"

    return Markup(
        '<h2>{title}</h2><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'aria-label="{title}"><path d="{gains}" fill="#2da44e"/><path d="{losses}" fill="#cf222e"/>'
        '<line x1="{left}" x2="{width}" y1="{middle}" y2="{middle}" stroke="#59636e"/>'
        '<g font-size="12" text-anchor="end" fill="#59636e"><text x="{text}" y="14">{top}</text>'
        '<text x="{text}" y="{zero}">0</text><text x="{text}" y="{last}">{bottom}</text></g></svg>'
    ).format(
        title=title,
        width=_MARGIN + _WIDTH,
        height=_HEIGHT,
        middle=middle,
        gains=area(np.minimum(heights, middle)),
        losses=area(np.maximum(heights, middle)),
        left=_MARGIN,
        text=_MARGIN - 6,
        zero=middle + 4,
        last=_HEIGHT - 6,
        top=f"{extent:+.2f}",
        bottom=f"{-extent:+.2f}",
    )


def _hit(name: str, hit: TopHit) -> Markup:
    text = hit.text if len(hit.text) <= _TEXT_CHARACTERS else hit.text[:_TEXT_CHARACTERS] + "…"
    kind, words = ("yes", "relevant") if hit.relevant else ("no", "not judged relevant")
    return Markup('<p><b>{}</b> (<span class="{}">{}</span>): {}</p>').format(name, kind, words, text)


def _article(change: Change) -> Markup:
    return Markup('<article><h3>{} <span class="dim">{:.3f} → {:.3f}</span></h3>{}{}</article>').format(
        change.query,
        change.base,
        change.trained,
        _hit("before", change.base_hit),
        _hit("after", change.trained_hit),
    )


def changes(title: str, shown: Sequence[Change], none: str) -> Markup:
    """Return a section of queries with their first hits before and after, or what is said where there are none."""
    return Markup("<h2>{}</h2>{}").format(title, Markup("").join(map(_article, shown)) or paragraph(none))
