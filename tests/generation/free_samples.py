"""A pair, its analysis and its rewrite, as known answers of the free form."""

import json
from collections.abc import Sequence
from typing import Any

from causalneg.generation.free.analysis import parse_analysis
from causalneg.generation.free.rewrite import Task, parse_rewrites
from causalneg.generation.profiles import load_profile
from causalneg.generation.rows import Pair
from causalneg.records import Analysis, Lineage, Negative, Passage, Query

PROFILE = load_profile("generic")
LINEAGE = Lineage(
    model="m",
    model_fingerprint="f",
    prompt_version="v",
    profile=PROFILE.key,
    seed=0,
    temperature=0.2,
    max_tokens=4096,
)
CANDIDATES = [
    Passage(id="crecy", title="Battle of Crécy", text="Edward III won the battle on 26 August 1346."),
    Passage(id="poitiers", title="Battle of Poitiers", text="John II was taken prisoner on 19 September 1356."),
]
PAIR = Pair(
    id="pair",
    query=Query(id="q", text="Who commanded the English at Agincourt?"),
    positive=Passage(
        id="agincourt",
        title="Battle of Agincourt",
        text='The battle was won by Henry V\n on 25 October 1415. It is called "the battle of mud". '
        "The Duke of Orléans was taken prisoner.",
    ),
    other_positives=[Passage(id="henry", title="Henry V", text="Henry V commanded at Agincourt.")],
    references=CANDIDATES,
    mined_scores=[0.1, 0.2],
)


def violation(kind: str = "intent_drift", direction: str = "Tell of the weather only.") -> dict[str, Any]:
    """A violation as the LLM writes it."""
    return {"type": kind, "direction": direction, "why_not_answer": "No commander is named."}


def requirement(content: str, evidence: str, facet: str = "attribute", critical: bool = False) -> dict[str, Any]:
    """A requirement as the LLM writes it; a critical one with two violations."""
    ways = [violation(), violation("entity_shift", "Tell of another battle.")] if critical else []
    return {"facet": facet, "critical": critical, "content": content, "evidence": evidence, "violations": ways}


def analysis_answer() -> dict[str, Any]:
    """An analysis as the LLM writes it."""
    return {
        "core_need": "The commander of the English at Agincourt.",
        "how_positive_answers": "It says who won the battle.",
        "answer_boundary": "Only a named commander answers.",
        "self_contained": True,
        "answering_candidates": [],
        "requirements": [
            requirement("The passage names the commander of its battle.", "won by Henry V", "information_need", True),
            requirement("The passage is about Agincourt.", "Battle of Agincourt", "entity", True),
            requirement("The passage gives the date.", "25 October 1415"),
            requirement("The passage names a prisoner.", "The Duke of Orléans was taken prisoner."),
        ],
    }


def analysis() -> Analysis:
    """The analysis of the pair."""
    return parse_analysis(json.dumps(analysis_answer()), PAIR, LINEAGE, False, CANDIDATES)


def passage_answer(task: int = 1, **changes: Any) -> dict[str, Any]:
    """A passage as the LLM writes it."""
    return {
        "task": task,
        "origin": "rewritten_candidate",
        "candidate": 1,
        "title": "Battle of Crécy",
        "text": 'The battle of 26 August 1346 is called "the battle of bows".',
        "explanation": "It tells of another battle.",
    } | changes


def rewrite_answer(*passages: dict[str, Any], skipped: Sequence[int] = ()) -> dict[str, Any]:
    """An answer with passages, one unless given, and tasks that are not feasible."""
    skips = [{"task": number, "reason": "It would still answer."} for number in skipped]
    return {"skipped": skips, "passages": list(passages) or [passage_answer()]}


def rewritten(analysis: Analysis, number: int = 2, way: int = 0) -> Negative:
    """A negative that breaks one requirement of the pair's analysis."""
    requirement = analysis.requirements[number - 1]
    tasks = [Task(requirement, requirement.violations[way])]
    text = json.dumps(rewrite_answer())
    return parse_rewrites(text, PAIR, analysis, tasks, 1, analysis.lineage, CANDIDATES).negatives[1]
