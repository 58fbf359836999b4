"""Checks on a few built-in pairs what an LLM can be asked, and picks mode and judge by it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel

from causalneg.config import GenerateSettings
from causalneg.generation.ask import Asker
from causalneg.generation.engines import Engine, EngineError
from causalneg.generation.free.author import FreeAuthor
from causalneg.generation.gates.spans import spans_left
from causalneg.generation.gates.style import form_defects
from causalneg.generation.judge import Judged, Method, ask_judge, judgement_scores
from causalneg.generation.profiles import Profile, load_profile
from causalneg.generation.rows import Pair, Usage
from causalneg.records import (
    Analysis,
    Judgement,
    Lineage,
    Negative,
    Passage,
    Query,
    Record,
    Requirement,
    ViolationType,
    full_text,
)

# A judge that is wrong more often than this says too little about a single requirement.
LEAST_JUDGED = 0.8
_LEAST_WRITTEN = 0.75  # share of the analyses, and of the passages, that hold
_JUDGED_PAIRS, _WRITTEN_PAIRS = 6, 4

Mode = Literal["edit", "rewrite"]


class Counterfactual(Record):
    """A hand-written negative that breaks one requirement."""

    requirement: int
    violation: ViolationType
    text: str
    why: str


class BuiltIn(Record):
    """A pair with a hand-made analysis and counterfactuals, and the answer that they must not give."""

    id: str
    query: str
    answer: str
    title: str
    text: str
    core_need: str
    how_positive_answers: str
    answer_boundary: str
    requirements: list[Requirement]
    counterfactuals: list[Counterfactual]

    def pair(self, references: Sequence["BuiltIn"]) -> Pair:
        """Return it as a pair whose references are other built-in passages."""
        return Pair(
            id=f"built-in {self.id}",
            query=Query(id=self.id, text=self.query),
            positive=Passage(id=self.id, title=self.title, text=self.text),
            other_positives=[],
            references=[Passage(id=r.id, title=r.title, text=r.text) for r in references],
            mined_scores=[],
        )

    def analysis(self, lineage: Lineage) -> Analysis:
        """Return its analysis."""
        return Analysis(
            id=f"built-in {self.id}",
            query_id=self.id,
            positive_id=self.id,
            core_need=self.core_need,
            how_positive_answers=self.how_positive_answers,
            answer_boundary=self.answer_boundary,
            requirements=self.requirements,
            lineage=lineage,
        )


class Capability(BaseModel):
    """What was found out about a model; rates are None where there was no need to ask.

    Attributes:
        likelihoods: whether the engine tells how likely a text is.
        judged: share of requirements judged rightly when asked yes or no, met and broken ones weighing the same.
        analysed: share of the analyses that hold.
        written: share of the passages that are well formed and don't give the answer.
        mode: the mode that this allows.
        judge: the way to judge that this allows.
        usage: what the check took.
    """

    likelihoods: bool
    judged: float
    analysed: float | None
    written: float | None
    mode: Mode
    judge: Method
    usage: Usage

    def reasons(self) -> dict[str, str]:
        """Return why mode and judge were picked, in words."""
        right = f"{self.judged:.0%} of the built-in requirements judged rightly by yes or no"
        judge = f"{right}; {LEAST_JUDGED:.0%} are asked for"
        if self.judged < LEAST_JUDGED and not self.likelihoods:
            judge += ", but this endpoint tells no likelihoods to judge by instead"
        if self.analysed is None:
            mode = f"{right}: too few to be trusted with writing"
        elif self.written is None:
            mode = f"{self.analysed:.0%} of the built-in pairs were taken apart without a fault"
        else:
            mode = f"{self.analysed:.0%} of the analyses and {self.written:.0%} of the passages held"
        return {"mode": mode, "judge": judge}


def built_in() -> list[BuiltIn]:
    """Return the built-in pairs."""
    text = files("causalneg.generation").joinpath("capability.jsonl").read_text(encoding="utf-8")
    return [BuiltIn.model_validate(json.loads(line)) for line in text.splitlines()]


def balanced_accuracy(met: Sequence[float], broken: Sequence[float]) -> float:
    """Return the mean of the shares of met requirements scored above 0 and of broken ones scored at most 0."""
    return (sum(s > 0 for s in met) / max(1, len(met)) + sum(s <= 0 for s in broken) / max(1, len(broken))) / 2


class _Check:
    """What is found out about a model, one question each.

    Args:
        engine: of the model.
        settings: of the passages it writes.
        profile: that it writes for.
        lineage: of what it writes; nothing of it is kept.
    """

    def __init__(self, engine: Engine, settings: GenerateSettings, profile: Profile, lineage: Lineage) -> None:
        self._asker = Asker(engine, 1, "capability")
        self._writer = FreeAuthor(settings, profile, lineage)
        self._lineage = lineage
        self._rows = built_in()

    @property
    def usage(self) -> Usage:
        return self._asker.usage

    async def likelihoods(self) -> bool:
        try:
            await self._asker.likelihood(["Paris is the capital of", " France."])
        except EngineError as error:
            if error.kind != "unsupported":
                raise
            return False
        return True

    async def judged(self) -> float:
        met: list[float] = []
        broken: list[float] = []

        async def ask(row: BuiltIn, title: str, text: str, target: int | None) -> None:
            passage, analysis = full_text(title, text), row.analysis(self._lineage)
            try:
                judged = await ask_judge(passage, row.query, analysis, self._asker)
            except EngineError:
                judged = _wrong(analysis, target)  # no answer is a wrong one
            answers = judged.answers or 0.0
            if target is None:
                met.extend([*(j.score for j in judged.requirements), answers])
            else:
                broken.extend([*(j.score for j in judged.requirements if j.requirement_id == target), answers])

        rows = self._rows[:_JUDGED_PAIRS]
        whole = (ask(row, row.title, row.text, None) for row in rows)
        changed = (ask(row, "", c.text, c.requirement) for row in rows for c in row.counterfactuals[:2])
        await asyncio.gather(*whole, *changed)
        return balanced_accuracy(met, broken)

    async def analysed(self) -> tuple[float, dict[str, Analysis]]:
        """Return the share of analyses that hold, and those, by the pair."""
        rows = self._rows[:_WRITTEN_PAIRS]
        made = await asyncio.gather(*(self._analysis(row) for row in rows))
        held = {row.id: analysis for row, analysis in zip(rows, made, strict=True) if analysis}
        return len(held) / len(rows), held

    async def _analysis(self, row: BuiltIn) -> Analysis | None:
        try:
            return await self._writer.decompose(row.pair(self._others(row)), self._asker)
        except EngineError:
            return None

    async def written(self, analyses: Mapping[str, Analysis]) -> float:
        """Return the share of passages that hold, by the model's own analyses and in its own judgement."""
        rows = [row for row in self._rows if row.id in analyses]
        held = await asyncio.gather(*(self._written(row, analyses[row.id]) for row in rows))
        flat = [h for found in held for h in found]
        return sum(flat) / max(1, len(flat))

    async def _written(self, row: BuiltIn, analysis: Analysis) -> list[bool]:
        try:
            made = await self._writer.perturb(row.pair(self._others(row)), analysis, self._asker)
        except EngineError:
            return [False]
        written = [n for n in made if isinstance(n, Negative)]
        missing = [False for n in made if isinstance(n, EngineError) and n.kind != "infeasible"]
        return [*await asyncio.gather(*(self._passes(n, row, analysis) for n in written)), *missing]

    async def _passes(self, negative: Negative, row: BuiltIn, analysis: Analysis) -> bool:
        if form_defects(negative.text, row.text) or spans_left(negative.text, [row.answer]):
            return False
        try:
            judged = await ask_judge(negative.full_text, row.query, analysis, self._asker)
        except EngineError:
            return False
        scores = judgement_scores(judged, analysis, negative.requirement_id)
        return scores["target_met"] < 0 and scores.get("others_met", 1.0) > 0 and scores["answers"] < 0

    def _others(self, row: BuiltIn) -> list[BuiltIn]:
        return [r for r in self._rows if r.id != row.id][-3:]


def _wrong(analysis: Analysis, target: int | None) -> Judged:
    score = -1.0 if target is None else 1.0
    return Judged([Judgement(requirement_id=r.id, score=score) for r in analysis.requirements if r.critical], score)


async def check_judge(engine: Engine) -> tuple[float, Usage]:
    """Find out how well a model judges, and nothing else: the share judged rightly, and what that took.

    Raises:
        EngineDeadError: the engine is gone.
    """
    nothing = Lineage(
        model="", model_fingerprint="", prompt_version="", profile="", seed=0, temperature=0.0, max_tokens=1
    )
    work = _Check(engine, GenerateSettings(), load_profile("generic"), nothing)
    return await work.judged(), work.usage


async def check(engine: Engine, settings: GenerateSettings, profile: Profile, lineage: Lineage) -> Capability:
    """Find out what a model can be asked. A model that can't judge isn't asked to write.

    Raises:
        EngineDeadError: the engine is gone.
    """
    work = _Check(engine, settings.model_copy(update={"candidates": 2}), profile, lineage)
    likelihoods = await work.likelihoods()
    judged = await work.judged()
    capable = judged >= LEAST_JUDGED
    analysed, analyses = await work.analysed() if capable else (None, {})
    able = analysed is not None and analysed >= _LEAST_WRITTEN
    written = await work.written(analyses) if able else None
    return Capability(
        likelihoods=likelihoods,
        judged=judged,
        analysed=analysed,
        written=written,
        mode="rewrite" if written is not None and written >= _LEAST_WRITTEN else "edit",
        judge="yes_no" if capable or not likelihoods else "likelihood",
        usage=work.usage,
    )
