"""Perturb: has the LLM write passages that break one requirement each, by one violation."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
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
    candidates_data,
    chat,
    list_schema,
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
from causalneg.records import Analysis, Facet, Lineage, Negative, Passage, Requirement, Violation, content_id

_KIND = "invalid_rewrite"


class _Passage(Answer):
    task: int
    origin: Literal["rewritten_candidate", "from_scratch"]
    candidate: int = Field(ge=0)
    title: str
    text: Text
    explanation: Words


class _Skipped(Answer):
    task: int
    reason: Words


class _Rewrites(Answer):
    skipped: list[_Skipped]
    passages: list[_Passage]


@dataclass(frozen=True)
class Task:
    """A requirement to break, and the way to break it."""

    requirement: Requirement
    violation: Violation

    def __str__(self) -> str:
        """Name it among the tasks of its analysis."""
        return f"rewrite {self.requirement.id} {self.violation.type}: {self.violation.direction}"


@dataclass(frozen=True)
class Rewrites:
    """What an answer holds for some tasks, by their numbers from 1.

    Attributes:
        negatives: one for each task that was done.
        faults: for each passage that can't be taken, why.
        infeasible: for each task that was skipped, why.
    """

    negatives: dict[int, Negative]
    faults: dict[int, str]
    infeasible: dict[int, str]


def plan_rewrites(analysis: Analysis, seed: int) -> list[Task]:
    """Return the tasks of a pair in the order in which they are to be tried, each way to break a requirement once.

    Every critical requirement has its turn before any is broken in a second way, and a second way of another type
    before one of the same type. The order is drawn by seed and analysis. The subject of a query that does not name it
    is not broken: another subject answers such a query, too.
    """
    draw = random.Random(content_id("rewrites", seed, analysis.id))  # noqa: S311 - a shuffle, no secret
    breakable = [
        r for r in analysis.requirements if r.critical and (analysis.self_contained or r.facet is not Facet.ENTITY)
    ]
    draw.shuffle(breakable)
    ways = [[Task(r, v) for v in _varied(draw.sample(r.violations, len(r.violations)))] for r in breakable]
    return [task for turn in zip_longest(*ways) for task in turn if task]


def _varied(violations: list[Violation]) -> list[Violation]:
    """Put violations of a type that was not there before those of a type that was."""
    types = [v.type for v in violations]
    return [violations[at] for at in sorted(range(len(types)), key=lambda at: types[:at].count(types[at]))]


def rewrite_chat(
    pair: Pair, analysis: Analysis, tasks: Sequence[Task], count: int, profile: Profile, references: Sequence[Passage]
) -> list[dict[str, str]]:
    """Return the messages that ask for negatives.

    The requests of one pair differ in their last lines alone, so that an engine works on the rest once.

    Args:
        pair: the query and its positive.
        analysis: of the pair.
        tasks: what to break and how, in the order in which they are to be tried.
        count: passages wanted.
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
            "candidates": candidates_data(references),
            "tasks": "\n".join(_task_data(number, task) for number, task in enumerate(tasks, 1)),
            "count": "1 passage" if count == 1 else f"{count} passages",
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


def _task_data(number: int, task: Task) -> str:
    requirement, violation = task.requirement, task.violation
    return (
        f"Task {number}: break requirement {requirement.id} ({requirement.facet.value}) by {violation.type.value}\n"
        f"  What to change: {one_line(violation.direction)}\n"
        f"  Why the query is then not answered: {one_line(violation.why_not_answer)}"
    )


def rewrite_schema(tasks: int, count: int, references: int) -> dict[str, Any]:
    """Return the JSON schema of an answer, in what xgrammar supports.

    Title and text have no bound of their own, so that they can hold quotation marks (see `form`).

    Args:
        tasks: number of tasks that the chat names.
        count: passages wanted.
        references: number of candidates that the chat shows.
    """
    ways = ["rewritten_candidate", "from_scratch"] if references else ["from_scratch"]
    task = {"type": "integer", "enum": list(range(1, tasks + 1))}
    passage = object_schema(
        task=task,
        origin={"type": "string", "enum": ways},
        candidate={"type": "integer", "enum": list(range(references + 1))},
        title=TEXT_SCHEMA,
        text=TEXT_SCHEMA,
        explanation=WORDS_SCHEMA,
    )
    skipped = object_schema(task=task, reason=WORDS_SCHEMA)
    return object_schema(skipped=list_schema(skipped, 0, tasks), passages=list_schema(passage, 0, count))


def parse_rewrites(
    text: str,
    pair: Pair,
    analysis: Analysis,
    tasks: Sequence[Task],
    count: int,
    lineage: Lineage,
    references: Sequence[Passage],
) -> Rewrites:
    """Read the answer to `rewrite_chat`. Nothing is repaired; white space around title and text is left out.

    A passage that can't be taken is a fault of its task alone: where origin and candidate do not go together, where
    there is a title and the positive has none or the other way round, where it holds control or hidden characters, or
    where it is a known passage, or another one of the answer, unchanged.

    Args:
        text: the answer.
        pair: the query and its positive.
        analysis: of the pair.
        tasks: as the chat named them.
        count: passages that the chat asked for.
        lineage: of the negatives.
        references: the candidates that the chat showed.

    Raises:
        AnswerError: `invalid_json` where it is no whole JSON; `invalid_rewrite` where it breaks the schema, or where a
            task is not among those named or comes twice.
    """
    answer = read_answer(_Rewrites, text, _KIND)
    if problem := _task_problem(answer, len(tasks), count):
        raise AnswerError(_KIND, problem)
    negatives: dict[int, Negative] = {}
    faults: dict[int, str] = {}
    known = [p.text for p in (pair.positive, *pair.other_positives, *references)]
    for passage in answer.passages:
        task, title = tasks[passage.task - 1], passage.title.strip()
        problem = _candidate_problem(passage, len(references)) or _text_problem(title, passage.text, pair, known)
        if problem:
            faults[passage.task] = problem
            continue
        known.append(passage.text)
        negatives[passage.task] = Negative(
            id=content_id("negative", analysis.id, task.requirement.id, task.violation.type, title, passage.text),
            query_id=pair.query.id,
            positive_id=pair.positive.id,
            analysis_id=analysis.id,
            title=title,
            text=passage.text,
            requirement_id=task.requirement.id,
            requirement=task.requirement.content,
            violation=task.violation.type,
            mode="rewrite",
            origin=passage.origin,
            explanation=passage.explanation,
            lineage=lineage,
        )
    return Rewrites(negatives, faults, {s.task: s.reason for s in answer.skipped})


def _task_problem(answer: _Rewrites, tasks: int, count: int) -> str | None:
    named = [s.task for s in answer.skipped] + [p.task for p in answer.passages]
    for number in named:
        if not 1 <= number <= tasks:
            return f"task: there are {tasks} tasks and no task {number}"
        if named.count(number) > 1:
            return f"task: task {number} comes twice"
    if len(answer.passages) > count:
        return f"passages: there are {len(answer.passages)} instead of {count}"
    return None


def _candidate_problem(passage: _Passage, references: int) -> str | None:
    rewritten = passage.origin == "rewritten_candidate"
    if passage.candidate > references:
        return f"candidate: there are {references} candidates and no candidate {passage.candidate}"
    if rewritten != bool(passage.candidate):
        return f"candidate: {passage.candidate} does not go with origin {passage.origin}"
    return None


def _text_problem(title: str, text: str, pair: Pair, known: Sequence[str]) -> str | None:
    if bool(title) != bool(pair.positive.title.strip()):
        return "title: is missing, as the positive has one" if not title else "title: the positive has none"
    if any(len(origins(part)) < len(part) for part in (title, text)):
        return "text: holds control or hidden characters"
    if any(_same(text, other) for other in known):
        return "text: is that of a positive, of a candidate or of another passage, unchanged"
    return None


def _same(one: str, other: str) -> bool:
    return one.casefold().split() == other.casefold().split()
