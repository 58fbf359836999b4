"""The data-set card of generated negatives: a README.md that says what they are, as the Hugging Face Hub reads it."""

from importlib.resources import files
from typing import Any

import yaml

from causalneg import __version__
from causalneg.generation.reporting.difference import marked, shortened
from causalneg.generation.reporting.examples import Example, by_verdict
from causalneg.generation.reporting.page import judging, meaning, plain
from causalneg.generation.reporting.report import GenerationReport, duration
from causalneg.generation.select import ACCEPTED
from causalneg.markdown import inline

# What each column of a negative holds.
COLUMNS = {
    "id": "hash of what determines the row",
    "query_id": "the query",
    "positive_id": "the positive it was made from",
    "analysis_id": "the analysis of that positive into requirements",
    "title": "its title, where the corpus has titles",
    "text": "its text",
    "requirement_id": "number of the broken requirement in the analysis",
    "requirement": "what the query needs and this text lacks",
    "violation": "how it is broken",
    "mode": "`edit` of the positive, or `rewrite` by the LLM",
    "origin": "what the text was made from: the positive, a mined negative, or nothing",
    "explanation": "why it does not answer",
    "edit": "the exact difference to the positive, for edits",
    "lineage": "model, prompts, profile and sampling it was made with",
    "judgements": "how far it meets each requirement: above 0 where it does",
    "scores": "what every gate measured",
    "notes": "what some scores are about, in words",
    "verdict": "`accepted` or `rejected`: filter on it",
    "rejected_by": "the first gate that it did not pass",
    "reason": "why, in words",
}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_CONTEXT = 60  # words of a text shown at its beginning, and at its end


def size_category(rows: int) -> str:
    """Return the size of a data set as the Hub names it."""
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def difference(example: Example) -> str:
    """Return a negative as Markdown: what was taken out of the positive struck through, what was put in bold."""
    marks = {"removed": "~~", "inserted": "**", "kept": ""}
    out = []
    for piece in marked(example.positive.full_text, example.negative.full_text):
        mark, text = marks[piece.kind], inline(shortened(piece.text, _CONTEXT))
        out.append(f"{mark}{text}{mark}" + (" " if piece.text[-1:].isspace() or piece.kind == "removed" else ""))
    return "".join(out).strip()


def front_matter(report: GenerationReport, licence: str | None, name: str, language: str | None) -> dict[str, Any]:
    """Return what the Hub reads of a card; what is not known is said to be unknown."""
    return {
        "pretty_name": " ".join(name.split()),
        "license": " ".join((licence or "unknown").split()),
        "language": [language or "und"],
        "task_categories": ["text-retrieval", "text-ranking"],
        "size_categories": [size_category(report.negatives)],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "tags": ["hard-negatives", "counterfactual", "dense-retrieval", "synthetic", "causalneg"],
    }


def card(
    report: GenerationReport,
    licence: str | None,
    name: str,
    language: str | None = None,
) -> str:
    """Return the card of a data set of generated negatives.

    Args:
        report: what was made, with negatives to show.
        licence: licence of the data set as the Hub names it; unknown when unset, and the card asks for it.
        name: of the data set.
        language: code of its language; undetermined when unset.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # All that is put in is escaped: as Markdown by these filters, or else as HTML.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "inline": lambda text: Markup(inline(str(text))),  # noqa: S704 - escaped by `inline`
        "difference": lambda example: Markup(difference(example)),  # noqa: S704 - escaped by `inline`
        "plain": plain,
        "meaning": meaning,
        "judging": judging,
        "shortened": lambda text: shortened(text, _CONTEXT),
        "count": "{:,}".format,
    }
    template = environment.from_string(
        files("causalneg.generation.reporting").joinpath("card.md.j2").read_text("utf-8")
    )
    shown = by_verdict(report.examples)
    accepted = shown.pop(ACCEPTED, [])
    matter = yaml.safe_dump(
        front_matter(report, licence, name, language), sort_keys=False, allow_unicode=True, width=1_000
    )
    body = template.render(
        report=report,
        name=name,
        licence=licence,
        language=language,
        version=__version__,
        duration=duration,
        columns=COLUMNS,
        accepted_examples=accepted,
        rejected_examples=[example for rows in shown.values() for example in rows],
        ACCEPTED=ACCEPTED,
    )
    return f"---\n{matter}---\n\n{body}"
