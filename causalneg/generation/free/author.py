"""Writes negatives in `rewrite` mode: the LLM writes the analysis and the passages itself."""

from collections.abc import Collection

from causalneg.config import GenerateSettings
from causalneg.generation.ask import Asker, Lost, settled
from causalneg.generation.engines import EngineError
from causalneg.generation.free.analysis import analysis_chat, analysis_schema, parse_analysis
from causalneg.generation.free.rewrite import parse_rewrite, plan_rewrites, rewrite_chat, rewrite_schema
from causalneg.generation.profiles import Profile
from causalneg.generation.rows import Mode, Pair
from causalneg.records import Analysis, Lineage, Negative, Requirement, Violation


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
        return await asker.ask(
            lambda _: analysis_chat(pair, self._profile, settings.allow_negation),
            lambda done, _: parse_analysis(done.text, pair, self._lineage, settings.allow_negation),
            "analysis",
            analysis_schema(settings.allow_negation),
            settings.max_tokens,
            settings.temperature,
        )

    async def perturb(
        self, pair: Pair, analysis: Analysis, asker: Asker, parts: Collection[str] | None = None
    ) -> list[Negative | Lost]:
        """Have the LLM write one passage for each of several violations, or only those parts that are asked for."""
        planned = plan_rewrites(analysis, self._settings.candidates, self._lineage.seed)
        wanted = {_part(*way): way for way in planned if parts is None or _part(*way) in parts}
        made = await settled(self._rewrite(pair, analysis, *way, asker) for way in wanted.values())
        return [Lost(p, m) if isinstance(m, EngineError) else m for p, m in zip(wanted, made, strict=True)]

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


def _part(requirement: Requirement, violation: Violation) -> str:
    """Return the name of a rewrite among those of its analysis."""
    return f"rewrite {requirement.id} {violation.type}: {violation.direction}"
