"""Takes one pair through decompose, perturb and judge; what fails is a row."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from causalneg.config import GenerateSettings
from causalneg.errors import UserError
from causalneg.generation.ask import Asker
from causalneg.generation.drafts import STEPS
from causalneg.generation.edit.author import Encode
from causalneg.generation.engines import Engine, EngineDeadError, EngineError
from causalneg.generation.gates.style import CorpusStyle
from causalneg.generation.judge import Method, judge_requirements, judgement_scores, query_scores
from causalneg.generation.rows import Pair, Step, Usage
from causalneg.generation.scoring import encoder_scores, text_scores
from causalneg.margins import relative_score
from causalneg.records import Analysis, Failure, Negative, Operation

Rescore = Callable[[str, Sequence[str]], list[float]]  # a query and texts to a cross-encoder's scores


class Writer(Protocol):
    """A mode of generation."""

    async def decompose(self, pair: Pair, asker: Asker) -> Analysis:
        """Take the positive apart."""

    async def perturb(self, pair: Pair, analysis: Analysis, asker: Asker) -> list[Negative | EngineError]:
        """Write candidate negatives; an error stands for one that was not to be had."""


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
    ) -> None:
        self._engine, self._writer, self._method, self._encode = engine, writer, method, encode
        self._style, self._settings, self._likelihoods, self._rescore = style, settings, likelihoods, rescore

    async def step(self, name: str, pair: Pair, before: Step | None) -> Step:
        """Do one step for a pair; what goes wrong becomes a failure row, never an exception.

        Args:
            name: of the step.
            pair: the pair.
            before: what the step before made; a failure is handed on.

        Raises:
            EngineDeadError: the engine is gone.
            UserError: no pair could be done, as with a wrong key.
        """
        if before and before.failure:
            return before.model_copy(update={"usage": Usage()})
        asker = Asker(self._engine, self._settings.engine.max_attempts, f"{name} {pair.id}")
        analysis = before.analysis if before else None
        try:
            if name == STEPS[0]:
                made = Step(pair_id=pair.id, analysis=await self._writer.decompose(pair, asker))
            elif analysis is None:
                raise ValueError(f"step {name} of pair {pair.id} has no analysis")
            elif name == STEPS[1]:
                made = await self._perturb(pair, analysis, asker)
            else:
                negatives = before.negatives if before else []
                scored = await self._score(pair, analysis, negatives, asker)
                made = Step(pair_id=pair.id, negatives=scored, lost=before.lost if before else [])
        except (EngineDeadError, UserError):
            raise
        except Exception as error:
            made = Step(pair_id=pair.id, failure=_failure(pair, error, asker))
        return made.model_copy(update={"analysis": made.analysis or analysis, "usage": asker.usage})

    async def _perturb(self, pair: Pair, analysis: Analysis, asker: Asker) -> Step:
        """Write candidates; the pair fails only where not one of them was to be had."""
        made = await self._writer.perturb(pair, analysis, asker)
        negatives = list({n.id: n for n in made if isinstance(n, Negative)}.values())
        errors = [e for e in made if isinstance(e, EngineError)]
        if errors and not negatives:
            raise errors[0]
        lost = [_failure(pair, error, asker) for error in errors]
        return Step(pair_id=pair.id, negatives=negatives, lost=lost)

    async def _score(
        self, pair: Pair, analysis: Analysis, negatives: Sequence[Negative], asker: Asker
    ) -> list[Negative]:
        if not negatives:
            return []
        judged, told, encoded = await asyncio.gather(
            judge_requirements(pair, analysis, negatives, self._method, asker),
            self._query_scores(pair, negatives, asker),
            asyncio.to_thread(self._encoder_scores, pair, negatives),
        )
        scored = []
        for negative, verdicts, query, vectors in zip(negatives, judged, told, encoded, strict=True):
            scores, notes = text_scores(negative, pair, analysis, self._style)
            certain = self._method == "yes_no" or negative.edit is not None
            scores |= judgement_scores(verdicts, analysis, negative.requirement_id, certain) | query | vectors
            if query and negative.edit and negative.edit.operation is Operation.REPLACE:
                scores["replaced_margin"] = query["likelihood_margin"]
            update = {"judgements": verdicts.requirements, "scores": scores, "notes": notes}
            scored.append(negative.model_copy(update=update))
        return scored

    async def _query_scores(self, pair: Pair, negatives: Sequence[Negative], asker: Asker) -> list[dict[str, float]]:
        return await query_scores(pair, negatives, asker) if self._likelihoods else [{} for _ in negatives]

    def _encoder_scores(self, pair: Pair, negatives: Sequence[Negative]) -> list[dict[str, float]]:
        query = pair.query.text
        texts = [pair.positive.full_text, *(n.full_text for n in negatives)]
        positive, *own = (self._encode(texts, "passage") @ self._encode([query], "query")[0]).tolist()
        rows = [encoder_scores(score, positive, pair.mined_scores) for score in own]
        if self._rescore:
            best, *crossed = self._rescore(query, texts)
            for row, score in zip(rows, crossed, strict=True):
                row |= {"cross_score": score, "cross_relative_score": relative_score(score, best)}
        return rows


def _failure(pair: Pair, error: Exception, asker: Asker) -> Failure:
    """Make a failure row of what stopped a pair, so that one bad row never stops the others."""
    return Failure(
        stage="generate",
        input_id=pair.id,
        kind=error.kind if isinstance(error, EngineError) else type(error).__name__,
        retryable=isinstance(error, EngineError) and error.retryable,
        attempts=max(1, asker.attempts),
        message=str(error),
    )
