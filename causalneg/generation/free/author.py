"""Writes negatives in `rewrite` mode: the LLM writes the analysis and the passages itself."""

import asyncio
from collections.abc import Sequence

from causalneg.config import GenerateSettings
from causalneg.generation.ask import Asker
from causalneg.generation.engines import Completion, EngineError
from causalneg.generation.free import ANSWER_FAULTS, AnswerError
from causalneg.generation.free.analysis import analysis_chat, analysis_schema, parse_analysis
from causalneg.generation.free.rewrite import (
    Rewrites,
    Task,
    parse_rewrites,
    plan_rewrites,
    rewrite_chat,
    rewrite_schema,
)
from causalneg.generation.profiles import Profile
from causalneg.generation.rows import Pair
from causalneg.records import Analysis, Lineage, Negative, Passage

_MOST_TASKS = 3  # named for each passage wanted, so that one that is not feasible gives way to the next


class FreeAuthor:
    """Has the LLM take a positive apart and write passages that break one requirement each.

    Args:
        settings: how many candidates and references, sampling.
        profile: what counts as relevant in the data set.
        lineage: what is written into every row.
    """

    def __init__(self, settings: GenerateSettings, profile: Profile, lineage: Lineage) -> None:
        self._settings, self._profile, self._lineage = settings, profile, lineage

    async def decompose(self, pair: Pair, asker: Asker) -> Analysis:
        """Have the LLM write the analysis; one that does not hold is asked for again, and never repaired."""
        settings = self._settings
        references = pair.references[: settings.references]
        return await asker.ask(
            lambda _: analysis_chat(pair, self._profile, references, settings.allow_negation),
            lambda done, _: parse_analysis(done.text, pair, self._lineage, settings.allow_negation, references),
            "analysis",
            analysis_schema(settings.allow_negation, len(references)),
            settings.max_tokens,
            settings.temperature,
        )

    async def perturb(self, pair: Pair, analysis: Analysis, asker: Asker) -> list[Negative | EngineError]:
        """Have the LLM write all passages of a pair in one answer, and once more each one that can't be taken.

        Returns:
            The negatives; an error stands for a task that could not be done or that the LLM found not feasible.
        """
        count = self._settings.candidates
        tasks = plan_rewrites(analysis, self._lineage.seed)[: _MOST_TASKS * count]
        if not tasks:
            return [EngineError("infeasible", "no requirement of the analysis can be broken", retryable=False)]
        try:
            first = await self._write(pair, analysis, tasks, min(count, len(tasks)), asker)
        except EngineError as error:
            if error.kind not in ANSWER_FAULTS:
                raise
            first = Rewrites({}, {}, {})
        left = [n for n in range(1, len(tasks) + 1) if n not in first.negatives and n not in first.infeasible]
        again = left[: count - len(first.negatives)]
        alone = await asyncio.gather(*(self._alone(pair, analysis, tasks[n - 1], asker) for n in again))
        skipped = [_infeasible(tasks[n - 1], why) for n, why in first.infeasible.items()]
        return [*first.negatives.values(), *alone, *skipped]

    async def _alone(self, pair: Pair, analysis: Analysis, task: Task, asker: Asker) -> Negative | EngineError:
        """Have the LLM write the passage of one task."""
        try:
            made = await self._write(pair, analysis, [task], 1, asker)
        except EngineError as error:
            return error
        return made.negatives[1] if made.negatives else _infeasible(task, made.infeasible[1])

    async def _write(self, pair: Pair, analysis: Analysis, tasks: Sequence[Task], count: int, asker: Asker) -> Rewrites:
        references = self._candidates(pair, analysis)

        def parse(done: Completion, _seed: int) -> Rewrites:
            made = parse_rewrites(done.text, pair, analysis, tasks, count, self._lineage, references)
            if not made.negatives and not made.infeasible:
                raise AnswerError("invalid_rewrite", "; ".join(made.faults.values()) or "there is no passage")
            return made

        return await asker.ask(
            lambda _: rewrite_chat(pair, analysis, tasks, count, self._profile, references),
            parse,
            f"rewrite {count} {tasks[0]} {tasks[0].violation.direction}",
            rewrite_schema(len(tasks), count, len(references)),
            self._settings.max_tokens,
            self._settings.temperature,
        )

    def _candidates(self, pair: Pair, analysis: Analysis) -> list[Passage]:
        """Return the mined negatives that are shown: none that the analysis found to answer the query."""
        return [r for r in pair.references if r.id not in analysis.answering][: self._settings.references]


def _infeasible(task: Task, why: str) -> EngineError:
    return EngineError("infeasible", f"{task}: {why}", retryable=False)
