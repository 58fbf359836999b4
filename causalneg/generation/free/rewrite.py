"""Perturb: has the LLM write a passage that breaks one requirement by one violation."""

import random
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Literal

from pydantic import Field

from causalneg.generation.free import AnswerError
from causalneg.generation.free.form import (
    TEXT_SCHEMA,
    WORDS_SCHEMA,
    Answer,
    Text,
    Words,
    chat,
    object_schema,
    one_line,
    passage_data,
    profile_text,
    read_answer,
    violations_text,
)
from causalneg.generation.profiles import Profile
from causalneg.generation.prompts.data import as_data, origins
from causalneg.generation.rows import Pair
from causalneg.records import Analysis, Lineage, Negative, Passage, Requirement, Violation, content_id

_KIND = "invalid_rewrite"


class _Rewrite(Answer):
    origin: Literal["rewritten_candidate", "from_scratch"]
    candidate: int = Field(ge=0)
    title: str
    text: Text
    explanation: Words


def plan_rewrites(analysis: Analysis, count: int, seed: int) -> list[tuple[Requirement, Violation]]:
    """Choose which requirements to break in which ways, each way once at most; fewer where there are fewer ways.

    Every critical requirement has its turn before any is broken in a second way, and a second way of another type
    before one of the same type. The order is drawn by seed and analysis.
    """
    draw = random.Random(content_id("rewrites", seed, analysis.id))  # noqa: S311 - a shuffle, no secret
    critical = [r for r in analysis.requirements if r.critical]
    draw.shuffle(critical)
    ways = [[(r, v) for v in _varied(draw.sample(r.violations, len(r.violations)))] for r in critical]
    turns = [way for turn in zip_longest(*ways) for way in turn if way]
    return turns[:count]


def _varied(violations: list[Violation]) -> list[Violation]:
    """Put violations of a type that was not there before those of a type that was."""
    types = [v.type for v in violations]
    return [violations[at] for at in sorted(range(len(types)), key=lambda at: types[:at].count(types[at]))]


def rewrite_chat(
    pair: Pair,
    analysis: Analysis,
    requirement: Requirement,
    violation: Violation,
    profile: Profile,
    references: Sequence[Passage],
) -> list[dict[str, str]]:
    """Return the messages that ask for one negative.

    The requests of one pair differ in their last lines alone, so that an engine works on the rest once.

    Args:
        pair: the query and its positive.
        analysis: of the pair.
        requirement: the one to break.
        violation: how to break it.
        profile: of the data set.
        references: mined negatives of the query, as candidates and examples of style; five in the paper.
    """
    return chat(
        "rewrite",
        {"profile": profile_text(profile), "violations": violations_text(allow_negation=True)},
        {
            "positive": passage_data(pair.positive),
            "query": as_data(pair.query.text),
            "analysis": _analysis_data(analysis),
            "candidates": _candidates_data(references),
            "requirement": f"{requirement.id}. {one_line(requirement.content)}",
            "violation": _violation_data(violation),
        },
    )


def _analysis_data(analysis: Analysis) -> str:
    lines = [
        f"Information need: {one_line(analysis.core_need)}",
        f"How the positive meets it: {one_line(analysis.how_positive_answers)}",
        f"What answers and what does not: {one_line(analysis.answer_boundary)}",
        "Requirements, each with what meets it in the positive:",
    ]
    for r in analysis.requirements:
        weight = "critical" if r.critical else "not critical"
        lines.append(f"{r.id}. ({r.facet.value}, {weight}) {one_line(r.content)} | {one_line(r.evidence)}")
    return "\n".join(lines)


def _candidates_data(references: Sequence[Passage]) -> str:
    if not references:
        return "There are no candidates."
    return "\n".join(
        f"<candidate_{number}>\n{passage_data(reference)}\n</candidate_{number}>"
        for number, reference in enumerate(references, 1)
    )


def _violation_data(violation: Violation) -> str:
    return (
        f"Type: {violation.type.value}\n"
        f"What to change: {one_line(violation.direction)}\n"
        f"Why the query is then not answered: {one_line(violation.why_not_answer)}"
    )


def rewrite_schema(references: int) -> dict[str, Any]:
    """Return the JSON schema of a rewrite, in what xgrammar supports.

    Title and text have no bound of their own, so that they can hold quotation marks (see `form`).

    Args:
        references: number of candidates that the chat shows.
    """
    ways = ["rewritten_candidate", "from_scratch"] if references else ["from_scratch"]
    return object_schema(
        origin={"type": "string", "enum": ways},
        candidate={"type": "integer", "enum": list(range(references + 1))},
        title=TEXT_SCHEMA,
        text=TEXT_SCHEMA,
        explanation=WORDS_SCHEMA,
    )


def parse_rewrite(
    text: str,
    pair: Pair,
    analysis: Analysis,
    requirement: Requirement,
    violation: Violation,
    lineage: Lineage,
    references: Sequence[Passage] | None = None,
) -> Negative:
    """Read the answer to `rewrite_chat`. Nothing is repaired; white space around title and text is left out.

    Args:
        text: the answer.
        pair: the query and its positive.
        analysis: of the pair.
        requirement: the one that was to be broken.
        violation: how it was to be broken.
        lineage: of the negative.
        references: the candidates that the chat showed; all of the pair's when not given.

    Raises:
        AnswerError: `invalid_json` where it is no whole JSON; `invalid_rewrite` where it breaks the schema, where
            origin and candidate do not go together, where there is a title and the positive has none or the other
            way round, where it holds control or hidden characters, or where it is a known passage unchanged.
    """
    answer = read_answer(_Rewrite, text, _KIND)
    title = answer.title.strip()
    references = pair.references if references is None else references
    problem = _candidate_problem(answer, len(references)) or _text_problem(title, answer.text, pair, references)
    if problem:
        raise AnswerError(_KIND, problem)
    return Negative(
        id=content_id("negative", analysis.id, requirement.id, violation.type, title, answer.text),
        query_id=pair.query.id,
        positive_id=pair.positive.id,
        analysis_id=analysis.id,
        title=title,
        text=answer.text,
        requirement_id=requirement.id,
        requirement=requirement.content,
        violation=violation.type,
        mode="rewrite",
        origin=answer.origin,
        explanation=answer.explanation,
        lineage=lineage,
    )


def _candidate_problem(answer: _Rewrite, references: int) -> str | None:
    rewritten = answer.origin == "rewritten_candidate"
    if answer.candidate > references:
        return f"candidate: there are {references} candidates and no candidate {answer.candidate}"
    if rewritten != bool(answer.candidate):
        return f"candidate: {answer.candidate} does not go with origin {answer.origin}"
    return None


def _text_problem(title: str, text: str, pair: Pair, references: Sequence[Passage]) -> str | None:
    if bool(title) != bool(pair.positive.title.strip()):
        return "title: is missing, as the positive has one" if not title else "title: the positive has none"
    if any(len(origins(part)) < len(part) for part in (title, text)):
        return "text: holds control or hidden characters"
    known = [pair.positive, *pair.other_positives, *references]
    if any(_same(text, passage.text) for passage in known):
        return "text: is that of a positive or a candidate, unchanged"
    return None


def _same(one: str, other: str) -> bool:
    return one.casefold().split() == other.casefold().split()
