"""The check of a model: its built-in pairs hold, and mode and judge follow from what the model can do."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from free_samples import LINEAGE, PROFILE, passage_answer, rewrite_answer
from generation_samples import is_judgement, verdicts

from causalneg.config import EngineSettings, GenerateSettings
from causalneg.errors import UserError
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


OWN_TEXTS = ("The year was quiet in the harbour.", "The records of the town hold little else.")


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
            self.asked.append("judge own" if any(text in flat for text in OWN_TEXTS) else "judge")
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
        ending = "" if self.writes else f" All of it was the work of {row.answer}."
        passages = [
            passage_answer(task, origin="from_scratch", candidate=0, title=row.title, text=f"{text}{ending}")
            for task, text in enumerate(OWN_TEXTS, 1)
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


@pytest.mark.parametrize(
    ("writes", "judges", "mode", "judge"),
    [(True, True, "rewrite", "yes_no"), (False, True, "edit", "yes_no"), (True, False, "edit", "likelihood")],
)
def test_a_judge_of_another_model_judges_and_the_writer_does_the_rest(
    writes: bool, judges: bool, mode: str, judge: str
) -> None:
    writer, other = Model(judges=not judges, writes=writes), Model(judges=judges, likelihoods=False)
    capability = asyncio.run(check(writer, SETTINGS, PROFILE, LINEAGE, judge=other))
    assert (capability.mode, capability.judge, capability.likelihoods) == (mode, judge, True)
    assert {what.split()[0] for what in other.asked} == {"judge"}
    assert set(writer.asked) == ({"analyse", "write"} if judges else set())
    assert capability.usage.requests == 1 + len(writer.asked) + len(other.asked)


def test_balanced_accuracy_by_hand() -> None:
    assert balanced_accuracy([1, 1, -1, 1], [-1, 1]) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert balanced_accuracy([1, 1], [1, 1]) == 0.5


class Disturbed(Model):
    """A capable model whose engine fails with one question of a kind.

    Args:
        what: words of the messages at which it fails.
        error: how.
    """

    def __init__(self, what: str, error: EngineError) -> None:
        super().__init__(judges=True)
        self.what, self.error = what, error

    async def complete(self, chat: list[dict[str, str]], *arguments: Any, **named: Any) -> Completion:
        """Fail or answer."""
        if self.what in " ".join(m["content"] for m in chat):
            raise self.error
        return await super().complete(chat, *arguments, **named)


@pytest.mark.parametrize("kind", ["rate_limited", "server_error", "timeout", "bad_response", "refused", "refusal"])
@pytest.mark.parametrize("what", ["Check the passage.", "Information need", built_in()[0].query])
def test_a_disturbance_decides_nothing(kind: str, what: str) -> None:
    error = EngineError(kind, "the endpoint says what it does not like", retryable=kind != "refused")
    with pytest.raises(UserError, match="the endpoint says what it does not like"):
        found(Disturbed(what, error))


def test_likelihoods_that_are_disturbed_decide_nothing_either() -> None:
    class Busy(Model):
        async def likelihood(self, segments: Sequence[str]) -> Likelihood:
            raise EngineError("server_error", "answered 503: busy", retryable=True)

    with pytest.raises(UserError, match="answered 503: busy"):
        found(Busy(judges=True))


def test_a_model_that_thinks_through_its_budget_is_not_judged_by_that() -> None:
    class Thinking(Model):
        async def complete(self, *arguments: Any, **named: Any) -> Completion:
            return Completion("", "length", 100, 0, 16)

    with pytest.raises(UserError, match=r"spent 16 tokens and wrote no answer.*--engine\.reasoning-tokens"):
        found(Thinking(judges=True))


def test_a_prompt_that_does_not_fit_says_something_about_the_model() -> None:
    error = EngineError("too_long", "the prompt has 3000 tokens of 2048", retryable=False)
    capability = found(Disturbed("Information need", error))
    assert (capability.mode, capability.judge) == ("edit", "yes_no")


@pytest.mark.parametrize(
    ("mode", "judge", "asked"),
    [
        ("edit", "likelihood", set()),
        ("rewrite", "yes_no", set()),
        ("edit", "auto", {"judge"}),
        ("rewrite", "auto", {"judge"}),
        ("auto", "yes_no", {"judge", "analyse", "write", "judge own"}),
    ],
)
def test_no_more_is_asked_than_the_settings_leave_open(mode: str, judge: str, asked: set[str]) -> None:
    model = Model(judges=True)
    settings = SETTINGS.model_copy(update={"mode": mode, "judge": judge})
    capability = asyncio.run(check(model, settings, PROFILE, LINEAGE))
    assert set(model.asked) == asked
    assert capability.likelihoods
    assert capability.usage.requests == 1 + len(model.asked)

    # What is left open later is asked for then, and nothing twice.
    before = Counter(model.asked)
    whole = asyncio.run(check(model, SETTINGS, PROFILE, LINEAGE, capability))
    assert (whole.mode, whole.judge) == ("rewrite", "yes_no")
    assert whole.usage.requests == 1 + len(model.asked)
    assert all(Counter(model.asked)[what] == count for what, count in before.items())


def test_what_an_earlier_version_wrote_is_read() -> None:
    old = {"likelihoods": True, "judged": 0.5, "analysed": None, "written": None, "mode": "edit", "judge": "likelihood"}
    capability = Capability.model_validate(old)
    assert (capability.mode, capability.judge) == ("edit", "likelihood")
