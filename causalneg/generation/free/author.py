"""Writes negatives in `rewrite` mode: the LLM writes the analysis and the passages itself."""

import asyncio

from causalneg.config import GenerateSettings
from causalneg.generation.ask import Asker
from causalneg.generation.engines import EngineError
from causalneg.generation.free.analysis import analysis_chat, analysis_schema, parse_analysis
from causalneg.generation.free.rewrite import parse_rewrite, plan_rewrites, rewrite_chat, rewrite_schema
from causalneg.generation.profiles import Profile
from causalneg.generation.rows import Pair
from causalneg.records import Analysis, Lineage, Negative, Requirement, Violation


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
        return await asker.ask(
            lambda _: analysis_chat(pair, self._profile, settings.allow_negation),
            lambda done, _: parse_analysis(done.text, pair, self._lineage, settings.allow_negation),
            "analysis",
            analysis_schema(settings.allow_negation),
            settings.max_tokens,
            settings.temperature,
        )

    async def perturb(self, pair: Pair, analysis: Analysis, asker: Asker) -> list[Negative | EngineError]:
        """Have the LLM write one passage for each of several violations; an error stands for one it could not write."""
        planned = plan_rewrites(analysis, self._settings.candidates, self._lineage.seed)

        async def one(requirement: Requirement, violation: Violation) -> Negative | EngineError:
            try:
                return await self._rewrite(pair, analysis, requirement, violation, asker)
            except EngineError as error:
                return error

        return list(await asyncio.gather(*(one(requirement, violation) for requirement, violation in planned)))

    async def _rewrite(
        self, pair: Pair, analysis: Analysis, requirement: Requirement, violation: Violation, asker: Asker
    ) -> Negative:
        references = pair.references[: self._settings.references]
        return await asker.ask(
            lambda _: rewrite_chat(pair, analysis, requirement, violation, self._profile, references),
            lambda done, _: parse_rewrite(done.text, pair, analysis, requirement, violation, self._lineage, references),
            f"rewrite {requirement.id} {violation.type}",
            rewrite_schema(len(references)),
            self._settings.max_tokens,
            self._settings.temperature,
        )
