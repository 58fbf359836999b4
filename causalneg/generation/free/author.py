"""Writes negatives in `rewrite` mode: the LLM writes the analysis and the passages itself."""

from collections.abc import Collection, Sequence

from causalneg.config import GenerateSettings
from causalneg.generation.ask import Asker, Lost, UnusableAnswerError, settled
from causalneg.generation.engines import Completion, EngineError
from causalneg.generation.free import AnswerError
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
from causalneg.generation.rows import Mode, Pair
from causalneg.records import Analysis, Lineage, Negative, Passage

INFEASIBLE = "infeasible"  # kind of the failure of a task that the LLM finds it can't do
_MOST_TASKS = 3  # named for each passage wanted, so that one that is not feasible gives way to the next


class FreeAuthor:
    """Has the LLM take a positive apart and write passages that break one requirement each.

    Args:
        settings: how many candidates and references, sampling.
        profile: what counts as relevant in the data set.
        lineage: what is written into every row.
    """

    mode: Mode = "rewrite"

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

    async def perturb(
        self, pair: Pair, analysis: Analysis, asker: Asker, parts: Collection[str] | None = None
    ) -> list[Negative | Lost]:
        """Have the LLM write all passages of a pair in one answer, and once more each one that can't be taken.

        Where only some parts are asked for, they are written one by one. A task that the LLM finds not feasible is
        lost, and gives its place to the next one.
        """
        tasks = plan_rewrites(analysis, self._lineage.seed)[: _MOST_TASKS * self._settings.candidates]
        if not tasks:
            return [Lost("rewrite", EngineError(INFEASIBLE, "no requirement can be broken", retryable=False))]
        if parts is not None:
            return await self._each(pair, analysis, [task for task in tasks if str(task) in parts], asker)
        count = min(self._settings.candidates, len(tasks))
        try:
            first = await self._write(pair, analysis, tasks, count, asker)
        except UnusableAnswerError:
            first = Rewrites({}, {}, {})
        left = [t for n, t in enumerate(tasks, 1) if n not in first.negatives and n not in first.infeasible]
        rest = await self._each(pair, analysis, left[: count - len(first.negatives)], asker)
        skipped = [_infeasible(tasks[number - 1], why) for number, why in first.infeasible.items()]
        return [*first.negatives.values(), *rest, *skipped]

    async def _each(self, pair: Pair, analysis: Analysis, tasks: Sequence[Task], asker: Asker) -> list[Negative | Lost]:
        """Have the LLM write the passage of each task in an answer of its own."""
        made = await settled(self._write(pair, analysis, [task], 1, asker) for task in tasks)
        return [
            Lost(str(task), own)
            if isinstance(own, EngineError)
            else own.negatives.get(1) or _infeasible(task, own.infeasible[1])
            for task, own in zip(tasks, made, strict=True)
        ]

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
            f"{count} of {tasks[0]}",
            rewrite_schema(len(tasks), count, len(references)),
            self._settings.max_tokens,
            self._settings.temperature,
        )

    def _candidates(self, pair: Pair, analysis: Analysis) -> list[Passage]:
        """Return the mined negatives that are shown: none that the analysis found to answer the query."""
        return [r for r in pair.references if r.id not in analysis.answering][: self._settings.references]


def _infeasible(task: Task, why: str) -> Lost:
    return Lost(str(task), EngineError(INFEASIBLE, why, retryable=False))
