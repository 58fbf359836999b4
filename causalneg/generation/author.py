"""Takes one pair through decompose, perturb and judge; what fails is a row."""

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from typing import Protocol, TypeVar

from causalneg.config import GenerateSettings
from causalneg.errors import UserError
from causalneg.generation.ask import Asker, Lost
from causalneg.generation.drafts import STEPS
from causalneg.generation.edit.author import Encode
from causalneg.generation.engines import Engine, EngineDeadError, EngineError
from causalneg.generation.gates.style import CorpusStyle
from causalneg.generation.judge import Judged, judge_requirements, llm_scores, query_scores
from causalneg.generation.rows import Method, Mode, Pair, Procedure, Step, Usage
from causalneg.generation.scoring import Rescore, Scorer
from causalneg.generation.select import FAILED, rejected
from causalneg.records import Analysis, Failure, Negative

Told = TypeVar("Told")


class Writer(Protocol):
    """A mode of generation."""

    mode: Mode

    async def decompose(self, pair: Pair, asker: Asker) -> Analysis:
        """Take the positive apart."""

    async def perturb(
        self, pair: Pair, analysis: Analysis, asker: Asker, parts: Collection[str] | None = None
    ) -> list[Negative | Lost]:
        """Write candidate negatives.

        Args:
            pair: the pair.
            analysis: of the pair.
            asker: asks the LLM.
            parts: only these, by the names under which they were lost before; all without.
        """


class Author:
    """Works on one pair at a time, step by step.

    Args:
        engine: answers.
        writer: the mode.
        method: how requirements are judged.
        encode: the base encoder.
        style: of the corpus.
        settings: attempts, candidates.
        likelihoods: whether the engine tells likelihoods.
        rescore: the cross-encoder, if there is one.
        judge: answers what is asked of a judge; the same engine without.
    """

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        method: Method,
        encode: Encode,
        style: CorpusStyle,
        settings: GenerateSettings,
        likelihoods: bool,
        rescore: Rescore | None = None,
        judge: Engine | None = None,
    ) -> None:
        self._engine, self._writer, self._method, self._judge = engine, writer, method, judge
        self._settings, self._likelihoods = settings, likelihoods
        self._scorer = Scorer(encode, style, rescore)

    @property
    def procedure(self) -> Procedure:
        """How it makes and scores negatives."""
        return Procedure(mode=self._writer.mode, judge=self._method, likelihoods=self._likelihoods)

    async def step(self, name: str, pair: Pair, before: Step | None, own: Step | None = None) -> Step:
        """Do one step for a pair; what goes wrong becomes a failure row, never an exception.

        Args:
            name: of the step.
            pair: the pair.
            before: what the step before made; a failure is handed on.
            own: what this step made before, where only some parts of it are to be made again.

        Raises:
            EngineDeadError: the engine is gone.
            UserError: no pair could be done, as with a wrong key.
        """
        if before and before.failure:
            return before.model_copy(update={"usage": Usage()})
        engine = self._settings.engine
        asker = Asker(self._engine, engine.max_attempts, f"{name} {pair.id}", engine.judge_tokens, self._judge)
        analysis = before.analysis if before else None
        try:
            if name == STEPS[0]:
                made = Step(pair_id=pair.id, analysis=await self._writer.decompose(pair, asker))
            elif analysis is None:
                raise ValueError(f"step {name} of pair {pair.id} has no analysis")
            elif name == STEPS[1]:
                made = await self._perturb(pair, analysis, own, asker)
            else:
                made = await self._scored(pair, analysis, before or Step(pair_id=pair.id), own, asker)
        except (EngineDeadError, UserError):
            raise
        except Exception as error:
            made = Step(pair_id=pair.id, failure=_failure(pair, error, asker))
        usage = asker.usage + (own.usage if own else Usage())
        return made.model_copy(update={"analysis": made.analysis or analysis, "usage": usage})

    async def _perturb(self, pair: Pair, analysis: Analysis, own: Step | None, asker: Asker) -> Step:
        """Write candidates; the pair fails only where not one of them was to be had."""
        known = own or Step(pair_id=pair.id)
        made = await self._writer.perturb(pair, analysis, asker, own.again if own else None)
        written = [*known.negatives, *(m for m in made if isinstance(m, Negative))]
        losses = [m for m in made if isinstance(m, Lost)]
        if losses and not written:
            raise losses[0].error
        lost = [*known.lost, *(_failure(pair, loss.error, asker, loss.part) for loss in losses)]
        return Step(pair_id=pair.id, negatives=list({n.id: n for n in written}.values()), lost=lost)

    async def _scored(self, pair: Pair, analysis: Analysis, before: Step, own: Step | None, asker: Asker) -> Step:
        """Score candidates, as far as they aren't already; the pair fails only where not one of them could be judged.

        One that could not be judged stays beside its failure, rejected for that reason.
        """
        known = own or Step(pair_id=pair.id)
        kept = {n.id: n for n in known.negatives if n.id not in known.again}
        todo = [n for n in before.negatives if n.id not in kept]
        asked, plain = await asyncio.gather(
            self._ask(pair, analysis, todo, asker), asyncio.to_thread(self._scorer.scores, pair, analysis, todo)
        )
        lost = [f for f in known.lost if f.part in kept]
        for negative, told, (scores, notes) in zip(todo, asked, plain, strict=True):
            scored = negative.model_copy(update={"scores": scores, "notes": notes})
            if isinstance(told, EngineError):
                kept[negative.id] = rejected(scored, FAILED, str(told))
                lost.append(_failure(pair, told, asker, negative.id))
            else:
                judged, more = told
                update = {"judgements": judged.requirements, "scores": scores | more}
                kept[negative.id] = scored.model_copy(update=update)
        errors = [told for told in asked if isinstance(told, EngineError)]
        if errors and all(n.rejected_by == FAILED for n in kept.values()):
            raise errors[0]
        return Step(pair_id=pair.id, negatives=[kept[n.id] for n in before.negatives], lost=[*before.lost, *lost])

    async def _ask(
        self, pair: Pair, analysis: Analysis, negatives: Sequence[Negative], asker: Asker
    ) -> list[tuple[Judged, dict[str, float]] | EngineError]:
        """Have the LLM judge negatives; an error stands for one that it could not judge."""
        if not negatives:
            return []
        judged, told = await asyncio.gather(
            _each(judge_requirements(pair, analysis, negatives, self._method, asker), len(negatives)),
            _each(self._query_scores(pair, negatives, asker), len(negatives)),
        )
        answers: list[tuple[Judged, dict[str, float]] | EngineError] = []
        for negative, verdicts, query in zip(negatives, judged, told, strict=True):
            if isinstance(verdicts, EngineError):
                answers.append(verdicts)
            elif isinstance(query, EngineError):
                answers.append(query)
            else:
                answers.append((verdicts, llm_scores(negative, analysis, verdicts, query, self._method)))
        return answers

    async def _query_scores(
        self, pair: Pair, negatives: Sequence[Negative], asker: Asker
    ) -> list[dict[str, float] | EngineError]:
        return await query_scores(pair, negatives, asker) if self._likelihoods else [{} for _ in negatives]


async def _each(call: Awaitable[list[Told | EngineError]], count: int) -> list[Told | EngineError]:
    """Wait for what is told of each negative; an error about what all are compared with is one about each."""
    try:
        return await call
    except EngineError as error:
        return [error] * count


def _failure(pair: Pair, error: Exception, asker: Asker, part: str = "") -> Failure:
    """Make a failure row of what stopped a pair, or a part of it, so that one bad row never stops the others."""
    return Failure(
        stage="generate",
        input_id=pair.id,
        kind=error.kind if isinstance(error, EngineError) else type(error).__name__,
        retryable=isinstance(error, EngineError) and error.retryable,
        attempts=max(1, asker.attempts),
        message=str(error),
        part=part,
    )
