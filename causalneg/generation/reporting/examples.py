"""Generated negatives to show, each with all that it is read beside: a draw of them, and their requirements."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel

from causalneg.config import GateSettings
from causalneg.generation.rows import Procedure, Step
from causalneg.generation.select import ACCEPTED, Case, cases, rejections
from causalneg.generation.text import sentences
from causalneg.records import Facet, Judgement, Negative, Passage, Requirement, content_id

_DRAWN = {"accepted": 12, "rejected": 2}  # of the rejected, by each gate
_VERDICTS = {True: "met", False: "not met"}


class Judged(BaseModel):
    """A requirement, where the positive meets it, and what the judge says of the negative.

    Attributes:
        broken: whether the negative was written to break it.
        spans: start and end of its evidence in the positive's full text, in characters.
        verdict: of the judge on the negative.
        score: of the judge, above 0 where it is met; None where it was not judged.
    """

    id: int
    content: str
    facet: Facet
    critical: bool
    broken: bool
    evidence: str
    spans: list[tuple[int, int]]
    verdict: Literal["met", "not met", "moot", "not judged"]
    score: float | None


class Example(BaseModel):
    """A generated negative with what it is read beside; its verdict says where it is shown.

    Attributes:
        gates: every gate that it does not pass, with the reason; the one that its row names comes first.
    """

    query: str
    core_need: str
    answer_boundary: str
    positive: Passage
    negative: Negative
    requirements: list[Judged]
    gates: dict[str, str]

    @property
    def group(self) -> str:
        """The gate that rejected it, or `accepted`."""
        return self.negative.rejected_by or ACCEPTED


class Stretch(BaseModel):
    """A stretch of a positive, and the requirements whose evidence it is."""

    text: str
    requirements: list[int]


def evidence_spans(evidence: str, text: str) -> list[tuple[int, int]]:
    """Return where evidence stands in a text, whatever its white space: as a whole, or else sentence by sentence."""
    for parts in ([evidence], sentences(evidence)):
        patterns = [r"\s+".join(map(re.escape, part.split())) for part in parts if part.strip()]
        found = [match.span() for p in patterns if (match := re.search(p, text))]
        if found:
            return found
    return []


def evidenced(text: str, requirements: Iterable[Judged]) -> list[Stretch]:
    """Return a positive's text in stretches, cut where the evidence of a requirement begins or ends."""
    spans = [(r.id, start, end) for r in requirements for start, end in r.spans]
    cuts = sorted({0, len(text), *(at for _, start, end in spans for at in (start, end))})
    return [
        Stretch(text=text[a:b], requirements=[number for number, start, end in spans if start <= a and b <= end])
        for a, b in pairwise(cuts)
    ]


def _judged(requirement: Requirement, judgement: Judgement | None, broken: bool, positive: str) -> Judged:
    verdict = "not judged" if judgement is None else "moot" if judgement.moot else _VERDICTS[judgement.score > 0]
    return Judged.model_validate(
        requirement.model_dump(include={"id", "content", "facet", "critical", "evidence"})
        | {
            "broken": broken,
            "spans": evidence_spans(requirement.evidence, positive),
            "verdict": verdict,
            "score": judgement.score if judgement else None,
        }
    )


def example(query: str, positive: Passage, case: Case, thresholds: GateSettings) -> Example:
    """Return a negative as it is shown.

    Args:
        query: text of its query.
        positive: the passage that it was made from.
        case: the negative with its verdict, and its analysis.
        thresholds: of the gates.
    """
    negative, analysis = case.negative, case.analysis
    judgements = {j.requirement_id: j for j in negative.judgements}
    named = {negative.rejected_by: negative.reason or ""} if negative.rejected_by else {}
    return Example(
        query=query,
        core_need=analysis.core_need,
        answer_boundary=analysis.answer_boundary,
        positive=positive,
        negative=negative,
        requirements=[
            _judged(r, judgements.get(r.id), r.id == negative.requirement_id, positive.full_text)
            for r in analysis.requirements
        ],
        gates=named | rejections(case, thresholds),
    )


def by_verdict(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Return examples by the gate that rejected them, or `accepted`, in the order given."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for one in examples:
        groups[one.group].append(one)
    return dict(groups)


class Draw:
    """A seeded draw of a few negatives of each kind from a stream."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._held: dict[str, list[tuple[str, Negative, Step]]] = defaultdict(list)

    def add(self, step: Step) -> None:
        """Look at a pair's negatives; one stays if its hash is among the lowest of its kind."""
        for negative in step.negatives:
            held = self._held[negative.rejected_by or ACCEPTED]
            held.append((content_id(self._seed, negative.id), negative, step))
            held.sort(key=lambda row: row[0])
            del held[_DRAWN[negative.verdict] :]

    def cases(self, procedure: Procedure | None) -> Sequence[Case]:
        """Return what was drawn, with what decides which gates apply."""
        drawn = [(negative, step) for held in self._held.values() for _, negative, step in held]
        return [c for n, step in drawn for c in cases(step.model_copy(update={"negatives": [n]}), procedure)]
