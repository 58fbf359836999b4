"""Checks on a few built-in pairs what an LLM can be asked, and picks mode and judge by it."""

import asyncio
import json
from collections.abc import Sequence
from importlib.resources import files

from pydantic import BaseModel

from causalneg.config import GenerateSettings
from causalneg.generation.ask import Asker
from causalneg.generation.engines import Engine, EngineError
from causalneg.generation.free.author import FreeAuthor
from causalneg.generation.gates.spans import spans_left
from causalneg.generation.gates.style import form_defects
from causalneg.generation.judge import ask_yes_no
from causalneg.generation.profiles import Profile
from causalneg.generation.rows import Method, Mode, Pair, Usage
from causalneg.records import Analysis, Lineage, Negative, Passage, Query, Record, Requirement, ViolationType, full_text

# A judge that is wrong more often than this says too little about a single requirement.
_LEAST_JUDGED = 0.8
_LEAST_WRITTEN = 0.75  # share of the analyses, and of the passages, that hold
_JUDGED_PAIRS, _WRITTEN_PAIRS = 6, 4


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
        judge = f"{right}; {_LEAST_JUDGED:.0%} are asked for"
        if self.judged < _LEAST_JUDGED and not self.likelihoods:
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

        async def ask(row: BuiltIn, title: str, text: str, number: int | None) -> None:
            chosen = [r for r in row.requirements if (r.critical if number is None else r.id == number)]
            analysis = row.analysis(self._lineage).model_copy(update={"requirements": chosen})
            scores, wrong = (met, -1.0) if number is None else (broken, 1.0)
            try:
                judgements = await ask_yes_no(full_text(title, text), row.query, analysis, self._asker)
                scores.extend(j.score for j in judgements)
            except EngineError:
                scores.extend(wrong for _ in chosen)  # no answer is a wrong one

        rows = self._rows[:_JUDGED_PAIRS]
        whole = (ask(row, row.title, row.text, None) for row in rows)
        changed = (ask(row, "", c.text, c.requirement) for row in rows for c in row.counterfactuals[:2])
        await asyncio.gather(*whole, *changed)
        return balanced_accuracy(met, broken)

    async def analysed(self) -> float:
        held = await asyncio.gather(*(self._holds(row) for row in self._rows[:_WRITTEN_PAIRS]))
        return sum(held) / len(held)

    async def _holds(self, row: BuiltIn) -> bool:
        try:
            await self._writer.decompose(row.pair(self._others(row)), self._asker)
        except EngineError:
            return False
        return True

    async def written(self) -> float:
        held = await asyncio.gather(*(self._written(row) for row in self._rows[:_WRITTEN_PAIRS]))
        flat = [h for rows in held for h in rows]
        return sum(flat) / max(1, len(flat))

    async def _written(self, row: BuiltIn) -> list[bool]:
        made = await self._writer.perturb(row.pair(self._others(row)), row.analysis(self._lineage), self._asker)
        return [
            isinstance(n, Negative) and not form_defects(n.text, row.text) and not spans_left(n.text, [row.answer])
            for n in made
        ]

    def _others(self, row: BuiltIn) -> list[BuiltIn]:
        return [r for r in self._rows if r.id != row.id][-3:]


async def check(engine: Engine, settings: GenerateSettings, profile: Profile, lineage: Lineage) -> Capability:
    """Find out what a model can be asked. A model that can't judge isn't asked to write.

    Raises:
        EngineDeadError: the engine is gone.
    """
    work = _Check(engine, settings.model_copy(update={"candidates": 2}), profile, lineage)
    likelihoods = await work.likelihoods()
    judged = await work.judged()
    capable = judged >= _LEAST_JUDGED
    analysed = await work.analysed() if capable else None
    able = analysed is not None and analysed >= _LEAST_WRITTEN
    written = await work.written() if able else None
    return Capability(
        likelihoods=likelihoods,
        judged=judged,
        analysed=analysed,
        written=written,
        mode="rewrite" if written is not None and written >= _LEAST_WRITTEN else "edit",
        judge="yes_no" if capable or not likelihoods else "likelihood",
        usage=work.usage,
    )
