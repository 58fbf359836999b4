"""The check of a model: its built-in pairs hold, and mode and judge follow from what the model can do."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from free_samples import LINEAGE, PROFILE, passage_answer, rewrite_answer
from generation_samples import is_judgement, verdicts

from causalneg.config import EngineSettings, GenerateSettings
from causalneg.generation.capability import BuiltIn, Capability, balanced_accuracy, built_in, check
from causalneg.generation.engines import Completion, EngineError, Likelihood
from causalneg.records import ViolationType

SETTINGS = GenerateSettings(engine=EngineSettings(max_attempts=1))


@pytest.mark.parametrize("row", built_in(), ids=lambda row: row.id)
def test_built_in_pairs_hold(row: BuiltIn) -> None:
    assert row.answer in row.text
    assert row.answer not in row.query
    assert len({r.id for r in row.requirements}) == len(row.requirements) >= 3
    for requirement in row.requirements:
        assert requirement.evidence
        assert requirement.evidence in row.text
        assert bool(requirement.violations) == requirement.critical
    critical = {r.id for r in row.requirements if r.critical}
    assert len({c.text for c in row.counterfactuals}) == len(row.counterfactuals) == 3
    for counterfactual in row.counterfactuals:
        assert counterfactual.requirement in critical
        assert counterfactual.violation in ViolationType
        assert counterfactual.why
        assert row.answer.casefold() not in counterfactual.text.casefold()
        assert counterfactual.text != row.text


class Model:
    """Judges, analyses and writes as well as it is told to.

    Args:
        judges: whether it tells met from broken requirements; otherwise it says yes to all.
        analyses: whether its analyses hold.
        writes: whether its passages leave the answer out.
        likelihoods: whether its engine tells likelihoods.
    """

    repeats = False

    def __init__(self, judges: bool, analyses: bool = True, writes: bool = True, likelihoods: bool = True) -> None:
        self.judges, self.analyses, self.writes, self.likelihoods = judges, analyses, writes, likelihoods
        self.asked: list[str] = []

    async def complete(
        self,
        chat: list[dict[str, str]],
        schema: dict[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_probabilities: int = 0,
    ) -> Completion:
        """Answer by what it can."""
        text = json.dumps(self._answer(chat[1]["content"], schema or {}))
        return Completion(text, "stop", 100, 0, 10)

    def _answer(self, content: str, schema: dict[str, Any]) -> dict[str, Any]:
        flat = " ".join(content.split())
        if is_judgement(schema):
            self.asked.append("judge")
            if any(row.text in flat for row in built_in()) or not self.judges:
                return verdicts(schema, "yes", "yes")
            return verdicts(schema, "moot", "no")
        row = next(row for row in built_in() if row.query in flat)
        if "requirements" in schema["properties"]:
            self.asked.append("analyse")
            requirements = [
                {"facet": r.facet, "critical": r.critical, "content": r.content, "evidence": r.evidence,
                 "violations": [v.model_dump() for v in r.violations]}
                for r in row.requirements
            ]  # fmt: skip
            if not self.analyses:
                requirements[0]["evidence"] = requirements[1]["evidence"] = "what nobody wrote"
            said = {"self_contained": True, "answering_candidates": [], "requirements": requirements}
            return row.model_dump(include={"core_need", "how_positive_answers", "answer_boundary"}) | said
        self.asked.append("write")
        texts = ("The year was quiet in the harbour.", "The records of the town hold little else.")
        ending = "" if self.writes else f" All of it was the work of {row.answer}."
        passages = [
            passage_answer(task, origin="from_scratch", candidate=0, title=row.title, text=f"{text}{ending}")
            for task, text in enumerate(texts, 1)
        ]
        return rewrite_answer(*passages)

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        """Tell a likelihood, if it can."""
        if not self.likelihoods:
            raise EngineError("unsupported", "no", retryable=False)
        return Likelihood([-1.0 for _ in segments], 10)

    async def close(self) -> None:
        """Do nothing."""


def found(model: Model) -> Capability:
    return asyncio.run(check(model, SETTINGS, PROFILE, LINEAGE))


def test_a_capable_model_rewrites_and_is_asked() -> None:
    capability = found(Model(judges=True))
    assert (capability.mode, capability.judge) == ("rewrite", "yes_no")
    assert (capability.judged, capability.analysed, capability.written) == (1.0, 1.0, 1.0)
    assert capability.usage.requests > 20


def test_a_model_that_cannot_judge_is_not_asked_to_write() -> None:
    model = Model(judges=False)
    capability = found(model)
    assert (capability.mode, capability.judge, capability.judged) == ("edit", "likelihood", 0.5)
    assert set(model.asked) == {"judge"}
    assert "50%" in capability.reasons()["mode"]


def test_a_model_whose_analyses_do_not_hold_edits_and_is_asked() -> None:
    capability = found(Model(judges=True, analyses=False))
    assert (capability.mode, capability.judge, capability.analysed, capability.written) == ("edit", "yes_no", 0.0, None)


def test_a_model_that_gives_the_answer_away_edits() -> None:
    capability = found(Model(judges=True, writes=False))
    assert (capability.mode, capability.written) == ("edit", 0.0)


def test_an_endpoint_without_likelihoods_is_asked_for_want_of_better() -> None:
    capability = found(Model(judges=False, likelihoods=False))
    assert (capability.mode, capability.judge) == ("edit", "yes_no")
    assert "no likelihoods" in capability.reasons()["judge"]


def test_balanced_accuracy_by_hand() -> None:
    assert balanced_accuracy([1, 1, -1, 1], [-1, 1]) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert balanced_accuracy([1, 1], [1, 1]) == 0.5
