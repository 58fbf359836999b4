"""Decompose: takes a positive apart into the information requirements of its query."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from causalneg.generation.free import AnswerError
from causalneg.generation.free.form import (
    TEXT_SCHEMA,
    WORDS_SCHEMA,
    Answer,
    Text,
    Words,
    candidates_data,
    chat,
    list_schema,
    object_schema,
    passage_data,
    profile_text,
    read_answer,
    violations_text,
)
from causalneg.generation.profiles import Profile
from causalneg.generation.prompts.data import as_data, origins
from causalneg.generation.rows import Pair
from causalneg.records import Analysis, Facet, Lineage, Passage, Requirement, Violation, ViolationType, content_id

_KIND = "invalid_analysis"
_REQUIREMENTS = (4, 8)
_VIOLATIONS = (2, 3)
# What a model may write in the place of a character of the passage: typographic quotes, dashes and ellipses.
_ALIKE = {
    alike: f"[{re.escape(kind)}]"
    for kind in ("'‘’‚‛`´", '"“”„‟«»', "-‐‑‒–—―−")  # noqa: RUF001 - look-alikes are meant
    for alike in kind
}
_ELLIPSIS = re.compile(r"…|\.\.\.")
_LONGEST_GAP = 200  # characters that an ellipsis in a quotation may stand for


class _Violation(Answer):
    type: ViolationType
    direction: Words
    why_not_answer: Words


class _Requirement(Answer):
    facet: Facet
    critical: bool
    content: Words
    evidence: Text
    violations: list[_Violation]


class _Analysis(Answer):
    core_need: Words
    how_positive_answers: Words
    answer_boundary: Words
    self_contained: bool
    answering_candidates: list[int]
    requirements: Annotated[list[_Requirement], Field(min_length=_REQUIREMENTS[0], max_length=_REQUIREMENTS[1])]


def analysis_chat(
    pair: Pair, profile: Profile, references: Sequence[Passage], allow_negation: bool = False
) -> list[dict[str, str]]:
    """Return the messages that ask for the analysis of a pair; the first is the same for all pairs.

    Args:
        pair: the query and its positive.
        profile: of the data set.
        references: mined negatives of the query, of which the answer says which ones are none.
        allow_negation: whether negation is among the types of violation.
    """
    return chat(
        "analyse",
        {"profile": profile_text(profile), "violations": violations_text(allow_negation)},
        {
            "positive": passage_data(pair.positive),
            "candidates": candidates_data(references),
            "query": as_data(pair.query.text),
        },
    )


def analysis_schema(allow_negation: bool, references: int) -> dict[str, Any]:
    """Return the JSON schema of an analysis, in what xgrammar supports.

    Args:
        allow_negation: whether negation is among the types of violation.
        references: number of candidates that the chat shows.

    `critical` comes early, since it decides how many violations follow: a grammar whose branches part late is slow to
    compile. The evidence has no bound of its own, so that it can hold quotation marks (see `form`).
    """
    types = [v.value for v in ViolationType if allow_negation or v is not ViolationType.NEGATION]
    violation = object_schema(
        type={"type": "string", "enum": types}, direction=WORDS_SCHEMA, why_not_answer=WORDS_SCHEMA
    )

    def requirement(critical: bool, at_least: int, at_most: int) -> dict[str, Any]:
        return object_schema(
            facet={"type": "string", "enum": [f.value for f in Facet]},
            critical={"type": "boolean", "enum": [critical]},
            content=WORDS_SCHEMA,
            evidence=TEXT_SCHEMA,
            violations=list_schema(violation, at_least, at_most),
        )

    either = {"anyOf": [requirement(True, *_VIOLATIONS), requirement(False, 0, 0)]}
    return object_schema(
        core_need=WORDS_SCHEMA,
        how_positive_answers=WORDS_SCHEMA,
        answer_boundary=WORDS_SCHEMA,
        self_contained={"type": "boolean"},
        answering_candidates=list_schema({"type": "integer", "enum": list(range(1, references + 1))}, 0, references)
        if references
        else {"type": "array", "items": {"type": "integer"}, "maxItems": 0},
        requirements=list_schema(either, *_REQUIREMENTS),
    )


def parse_analysis(
    text: str, pair: Pair, lineage: Lineage, allow_negation: bool, references: Sequence[Passage] = ()
) -> Analysis:
    """Read the answer to `analysis_chat`. Nothing is repaired; the requirements are numbered from 1 in their order.

    Evidence may differ from the positive in white space, in quotes, dashes and ellipses, and in what `as_data` changed,
    since that is what the LLM read; it is stored as it stands in the positive. A requirement that is not critical and
    whose evidence does not stand there is left out.

    Raises:
        AnswerError: `invalid_json` where it is no whole JSON; `invalid_analysis` where it breaks the schema, where the
            evidence of a critical requirement does not stand in the positive, where two requirements say the same, or
            where not exactly one critical requirement says what is asked.
    """
    answer = read_answer(_Analysis, text, _KIND)
    for problem in _problems(answer, allow_negation, len(references)):
        raise AnswerError(_KIND, problem)
    quoted = [(r, _verbatim(r.evidence, pair.positive)) for r in answer.requirements]
    for number, (requirement, evidence) in enumerate(quoted, 1):
        if requirement.critical and evidence is None:
            said = (
                f"the evidence of requirement {number} does not stand in the positive: {requirement.evidence[:200]!r}"
            )
            raise AnswerError(_KIND, said)
    kept = [(r, evidence) for r, evidence in quoted if evidence is not None]
    requirements = [
        Requirement(
            id=number,
            facet=r.facet,
            content=r.content,
            evidence=evidence,
            critical=r.critical,
            violations=[Violation(**v.model_dump()) for v in r.violations],
        )
        for number, (r, evidence) in enumerate(kept, 1)
    ]
    return Analysis(
        # The answer is part of the id: what was sampled anew is another analysis, with negatives of its own.
        id=content_id("analysis", pair.id, lineage.model_dump(), answer.model_dump(mode="json")),
        query_id=pair.query.id,
        positive_id=pair.positive.id,
        core_need=answer.core_need,
        how_positive_answers=answer.how_positive_answers,
        answer_boundary=answer.answer_boundary,
        requirements=requirements,
        lineage=lineage,
        self_contained=answer.self_contained,
        answering=[references[number - 1].id for number in sorted(set(answer.answering_candidates))],
    )


def _problems(answer: _Analysis, allow_negation: bool, references: int) -> Iterator[str]:
    """Name what is wrong beyond the members and their types."""
    for number in answer.answering_candidates:
        if not 1 <= number <= references:
            yield f"answering_candidates: there are {references} candidates and no candidate {number}"
    seen: dict[str, int] = {}
    for number, requirement in enumerate(answer.requirements, 1):
        first = seen.setdefault(_folded(requirement.content), number)
        if first != number:
            yield f"requirement {number} says the same as requirement {first}"
        for problem in _violation_problems(requirement, allow_negation):
            yield f"requirement {number} {problem}"
    asking = sum(r.critical and r.facet is Facet.INFORMATION_NEED for r in answer.requirements)
    if asking != 1:
        yield f"{asking} critical requirements say what is asked, by the facet information_need; exactly one must"


def _violation_problems(requirement: _Requirement, allow_negation: bool) -> Iterator[str]:
    count, (least, most) = len(requirement.violations), _VIOLATIONS
    if requirement.critical and not least <= count <= most:
        yield f"is critical and has {count} violations instead of {least} or {most}"
    if not requirement.critical and count:
        yield "is not critical and has violations"
    if not allow_negation and any(v.type is ViolationType.NEGATION for v in requirement.violations):
        yield "has a negation, which is not allowed"
    if len({(v.type, _folded(v.direction)) for v in requirement.violations}) < count:
        yield "has the same violation twice"


def _folded(sentence: str) -> str:
    return " ".join(re.findall(r"\w+", sentence.casefold()))


def _verbatim(evidence: str, positive: Passage) -> str | None:
    """Return the evidence as it stands in the positive's text, or else in its title, or None."""
    stretches = (_stretch(evidence, whole) for whole in (positive.text, positive.title))
    return next((stretch for stretch in stretches if stretch is not None), None)


def _stretch(evidence: str, whole: str) -> str | None:
    """Return the stretch of a text that the evidence quotes."""
    shown, places = as_data(whole), origins(whole)
    # The LLM may copy a look-alike, or write the character that it stands for.
    for quote in (evidence, as_data(evidence)):
        pattern = _quotation(quote)
        if pattern and (found := re.search(pattern, shown, re.DOTALL)):
            return whole[places[found.start()] : places[found.end() - 1] + 1]
    return None


def _quotation(quote: str) -> str:
    """Return a pattern of a quotation; an ellipsis stands for itself or for a few words that were left out."""
    parts = [words for part in _ELLIPSIS.split(quote) if (words := part.split())]
    plain = (r"\s+".join("".join(_ALIKE.get(c, re.escape(c)) for c in word) for word in part) for part in parts)
    return f".{{0,{_LONGEST_GAP}}}?".join(plain)
