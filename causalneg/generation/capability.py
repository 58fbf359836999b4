"""Checks on a few built-in pairs what an LLM can be asked, and picks mode and judge by it."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TypeVar

from pydantic import BaseModel

from causalneg.config import GenerateSettings
from causalneg.errors import UserError
from causalneg.generation.ask import Asker, Lost, UnusableAnswerError, answered
from causalneg.generation.engines import Engine, EngineError
from causalneg.generation.free.author import INFEASIBLE, FreeAuthor
from causalneg.generation.gates.spans import spans_left
from causalneg.generation.gates.style import form_defects
from causalneg.generation.judge import Judged, ask_judge, judgement_scores
from causalneg.generation.profiles import Profile, load_profile
from causalneg.generation.rows import Method, Mode, Pair, Usage
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

Value = TypeVar("Value")


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
        judged: share of requirements and of queries judged rightly when asked, met and broken ones weighing the same;
            by the judge, where that is another model.
        analysed: share of the analyses that hold.
        written: share of the passages that are well formed, don't give the answer and pass the judge.
        usage: what the check took.
    """

    likelihoods: bool
    judged: float | None = None
    analysed: float | None = None
    written: float | None = None
    usage: Usage = Usage()

    @property
    def can_judge(self) -> bool:
        """Whether it can be asked yes or no, and trusted with writing."""
        return self.judged is not None and self.judged >= LEAST_JUDGED

    @property
    def can_analyse(self) -> bool:
        """Whether enough of its analyses hold."""
        return self.analysed is not None and self.analysed >= _LEAST_WRITTEN

    @property
    def mode(self) -> Mode:
        """The mode that this allows."""
        return "rewrite" if self.written is not None and self.written >= _LEAST_WRITTEN else "edit"

    @property
    def judge(self) -> Method:
        """The way to judge that this allows."""
        return "yes_no" if self.can_judge or not self.likelihoods else "likelihood"

    def reasons(self) -> dict[str, str]:
        """Return why mode and judge were picked, in words, where they were."""
        if self.judged is None:
            return {}
        right = f"{self.judged:.0%} of the built-in requirements judged rightly by yes or no"
        judge = f"{right}; {LEAST_JUDGED:.0%} are asked for"
        if not self.can_judge and not self.likelihoods:
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
        judge: the engine of another model that judges, if there is one.
    """

    def __init__(
        self,
        engine: Engine,
        settings: GenerateSettings,
        profile: Profile,
        lineage: Lineage,
        judge: Engine | None = None,
    ) -> None:
        self._asker = Asker(engine, 1, "capability", settings.engine.judge_tokens, judge)
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
            except EngineError as error:
                judged = _wrong(error, _misjudged(analysis, target))
            answers = judged.answers or 0.0
            if target is None:
                met.extend([*(j.score for j in judged.requirements), answers])
            else:
                broken.extend([*(j.score for j in judged.requirements if j.requirement_id == target), answers])

        rows = self._rows[:_JUDGED_PAIRS]
        whole = (ask(row, row.title, row.text, None) for row in rows)
        changed = (ask(row, "", c.text, c.requirement) for row in rows for c in row.counterfactuals[:2])
        await answered([*whole, *changed])
        return balanced_accuracy(met, broken)

    async def analysed(self) -> dict[str, Analysis]:
        """Return the analyses that hold, by the pair."""
        rows = self._rows[:_WRITTEN_PAIRS]
        made = await answered(self._analysis(row) for row in rows)
        return {row.id: analysis for row, analysis in zip(rows, made, strict=True) if analysis}

    async def _analysis(self, row: BuiltIn) -> Analysis | None:
        try:
            return await self._writer.decompose(row.pair(self._others(row)), self._asker)
        except EngineError as error:
            return _wrong(error, None)

    async def written(self, analyses: Mapping[str, Analysis]) -> float:
        """Return the share of passages that hold, by the model's own analyses and as the judge finds."""
        rows = [row for row in self._rows if row.id in analyses]
        held = await answered(self._written(row, analyses[row.id]) for row in rows)
        flat = [h for found in held for h in found]
        return sum(flat) / max(1, len(flat))

    async def _written(self, row: BuiltIn, analysis: Analysis) -> list[bool]:
        try:
            made = await self._writer.perturb(row.pair(self._others(row)), analysis, self._asker)
        except EngineError as error:
            return [_wrong(error, False)]
        passes = await answered(self._passes(n, row, analysis) for n in made if isinstance(n, Negative))
        lost = [m.error for m in made if isinstance(m, Lost) and m.error.kind != INFEASIBLE]
        return [*passes, *(_wrong(error, False) for error in lost)]

    async def _passes(self, negative: Negative, row: BuiltIn, analysis: Analysis) -> bool:
        if form_defects(negative.text, row.text) or spans_left(negative.text, [row.answer]):
            return False
        try:
            judged = await ask_judge(negative.full_text, row.query, analysis, self._asker)
        except EngineError as error:
            return _wrong(error, False)
        scores = judgement_scores(judged, analysis, negative.requirement_id)
        return scores["target_met"] < 0 and scores.get("others_met", 1.0) > 0 and scores["answers"] < 0

    def _others(self, row: BuiltIn) -> list[BuiltIn]:
        return [r for r in self._rows if r.id != row.id][-3:]


def _misjudged(analysis: Analysis, target: int | None) -> Judged:
    """Return the wrong judgement of a passage that meets all, or breaks one requirement."""
    score = -1.0 if target is None else 1.0
    return Judged([Judgement(requirement_id=r.id, score=score) for r in analysis.requirements if r.critical], score)


def _wrong(error: EngineError, value: Value) -> Value:
    """Return what counts as wrong, where an error says something about the model: it gave no answer that serves.

    Raises:
        EngineError: the error itself, where it decides nothing: the endpoint was out of order or refused.
    """
    decides = isinstance(error, UnusableAnswerError) and error.kind not in ("no_content", "refusal")
    if decides or error.kind == "too_long":
        return value
    raise error


async def check_judge(engine: Engine, known: Capability | None = None) -> Capability:
    """Find out how well a model judges, and nothing else.

    Args:
        engine: of the model.
        known: what an earlier check found; it isn't asked for again.

    Raises:
        UserError: a question had no answer for a reason that says nothing about the model.
        EngineDeadError: the engine is gone.
    """
    if known and known.judged is not None:
        return known
    nothing = Lineage(
        model="", model_fingerprint="", prompt_version="", profile="", seed=0, temperature=0.0, max_tokens=1
    )
    work = _Check(engine, GenerateSettings(), load_profile("generic"), nothing)
    try:
        judged = await work.judged()
    except EngineError as error:
        raise UserError(
            f"The judge could not be checked, and nothing is decided about it: {error}. Mend that and run the same "
            "command again; with --check false there is nothing to check."
        ) from error
    return Capability(likelihoods=False, judged=judged, usage=work.usage)


async def check(
    engine: Engine,
    settings: GenerateSettings,
    profile: Profile,
    lineage: Lineage,
    known: Capability | None = None,
    judge: Engine | None = None,
) -> Capability:
    """Find out what a model can be asked, as far as the settings leave that open.

    A model that can't judge, or whose judge can't, isn't asked to write.

    Args:
        engine: of the model.
        settings: mode and judge, where they are set; and of the passages it writes.
        profile: that it writes for.
        lineage: of what it writes; nothing of it is kept.
        known: what an earlier check found; it isn't asked for again.
        judge: the engine of another model that judges, if there is one.

    Raises:
        UserError: a question had no answer for a reason that says nothing about the model.
        EngineDeadError: the engine is gone.
    """
    work = _Check(engine, settings.model_copy(update={"candidates": 2}), profile, lineage, judge)
    try:
        found = known or Capability(likelihoods=await work.likelihoods())
        if found.judged is None and "auto" in (settings.mode, settings.judge):
            found = found.model_copy(update={"judged": await work.judged()})
        writes = settings.mode == "auto" and found.can_judge
        if writes and found.analysed is None:
            analyses = await work.analysed()
            found = found.model_copy(update={"analysed": len(analyses) / _WRITTEN_PAIRS})
            if found.can_analyse:
                found = found.model_copy(update={"written": await work.written(analyses)})
    except EngineError as error:
        raise UserError(
            f"The model {lineage.model!r} could not be checked, and nothing is decided about it: {error}. Mend that "
            "and run the same command again; with --mode and --judge set there is next to nothing to check."
        ) from error
    return found.model_copy(update={"usage": found.usage + work.usage})
