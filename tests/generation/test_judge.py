"""Judging: every requirement of the analysis, by yes or no, by likelihood, or by the edit itself."""

import asyncio
import json
import math
from collections.abc import Sequence

import pytest
from free_samples import PAIR, analysis, rewrite_answer
from generation_samples import ScriptedEngine

from causalneg.generation.ask import Asker
from causalneg.generation.engines import Completion, Likelihood
from causalneg.generation.free.rewrite import parse_rewrite
from causalneg.generation.judge import by_margin, judge_requirements, judgement_scores, query_scores
from causalneg.records import Judgement, Negative

ANALYSIS = analysis()


def rewritten() -> Negative:
    requirement = ANALYSIS.requirements[1]
    violation = requirement.violations[0]
    return parse_rewrite(
        json.dumps(rewrite_answer()), PAIR, ANALYSIS, requirement, violation, ANALYSIS.lineage, PAIR.references
    )


def test_asked_yes_or_no_every_requirement_is_judged_with_its_probability() -> None:
    def answer(number: int, _schema: object) -> Completion:
        sure = 0.9 if number == 2 else 0.2
        word = "yes" if sure > 0.5 else "no"
        places = [{'{"': 1.0}, {"meets": 1.0}, {'":"': 1.0}, {"yes": sure, "no": 1 - sure}, {'"}': 1.0}]
        return Completion(f'{{"meets":"{word}"}}', "stop", 10, 0, 5, places)

    engine = ScriptedEngine(answer)
    (judged,) = asyncio.run(judge_requirements(PAIR, ANALYSIS, [rewritten()], "yes_no", Asker(engine, 1, "k")))
    assert [j.requirement_id for j in judged] == [r.id for r in ANALYSIS.requirements]
    assert sorted(round(j.score, 3) for j in judged) == sorted(
        [round(math.log(9), 3)] + [round(math.log(0.25), 3)] * (len(judged) - 1)
    )
    shared = [chat[0]["content"] for chat in engine.chats]
    assert len(set(shared)) == 1  # the instructions come first and are the same: the prefix cache has them


class Likely(ScriptedEngine):
    """Finds the evidence likely after the positive, unlikely after a candidate, and in between after the negative."""

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        value = -1.0 if "Agincourt" in segments[0] else -3.0 if "prisoner" in segments[0] else -2.5
        return Likelihood([-2.0, *([value] * (len(segments) - 1))], 10)


def test_by_likelihood_a_requirement_is_met_above_half_way() -> None:
    asker = Asker(Likely(lambda *_: Completion("", "stop", 0, 0, 0)), 1, "k")
    (judged,) = asyncio.run(judge_requirements(PAIR, ANALYSIS, [rewritten()], "likelihood", asker))
    assert {j.score for j in judged} == {-0.5}
    assert asker.usage.requests == 3  # positive, a candidate, the negative: all requirements in one request each


def test_margins_by_hand() -> None:
    assert by_margin([-1.0, -3.0], [-1.0, -1.0], [-3.0, -3.0]) == [1.0, -1.0]


def test_scores_of_the_broken_and_of_the_other_critical_requirements() -> None:
    judgements = [Judgement(requirement_id=n, score=s) for n, s in ((1, 2.0), (2, -1.0), (3, -5.0))]
    assert judgement_scores(judgements, ANALYSIS, broken=2) == {"target_met": -1.0, "others_met": 2.0}
    assert judgement_scores(judgements[1:2], ANALYSIS, broken=2) == {"target_met": -1.0}
    assert judgement_scores([], ANALYSIS, broken=2) == {}
    uncertain = judgement_scores(judgements, ANALYSIS, broken=2, certain=False)
    assert uncertain == {"target_likely": -1.0, "others_likely": 2.0}


def test_query_scores_compare_with_the_positive() -> None:
    asker = Asker(Likely(lambda *_: Completion("", "stop", 0, 0, 0)), 1, "k")
    (scores,) = asyncio.run(query_scores(PAIR, [rewritten()], asker))
    assert scores["likelihood_margin"] == pytest.approx(1.5)
    assert scores["fluency"] == 0
