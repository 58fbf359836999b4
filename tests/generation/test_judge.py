"""Judging: every requirement of the analysis, by yes or no, by likelihood, or by the edit itself."""

import asyncio
import math
from collections.abc import Sequence

import pytest
from free_samples import PAIR, analysis, rewritten
from generation_samples import ScriptedEngine

from causalneg.generation.ask import Asker
from causalneg.generation.engines import Completion, Likelihood
from causalneg.generation.free.judge import MOST_LOG_ODDS
from causalneg.generation.judge import Judged, by_margin, judge_requirements, judgement_scores, query_scores
from causalneg.records import Judgement

ANALYSIS = analysis()


def test_the_judge_is_asked_once_per_negative_about_its_critical_requirements() -> None:
    def answer(_number: int, _schema: object) -> Completion:
        places = [{'{"1":"': 1.0}, {"yes": 0.9, "no": 0.1}, {'","2":"': 1.0}, {"no": 0.8, "yes": 0.2}]
        places += [{'","answers":"': 1.0}, {"no": 0.75, "partly": 0.25}, {'"}': 1.0}]
        return Completion('{"1":"yes","2":"no","answers":"no"}', "stop", 10, 0, 7, places)

    engine, negative = ScriptedEngine(answer), rewritten(ANALYSIS)
    asked = [negative, negative.model_copy(update={"text": "Another text."})]
    judged = asyncio.run(judge_requirements(PAIR, ANALYSIS, asked, "yes_no", Asker(engine, 1, "k")))
    assert len(engine.chats) == 2
    assert len({chat[0]["content"] for chat in engine.chats}) == 1, "the prefix cache has the instructions"
    for row in judged:
        assert [(j.requirement_id, j.moot) for j in row.requirements] == [(1, False), (2, False)]
        assert [j.score for j in row.requirements] == pytest.approx([math.log(9), math.log(0.25)])
        assert row.answers == pytest.approx(math.log(0.25 / 0.75))


class Likely(ScriptedEngine):
    """Finds the evidence likely after the positive, unlikely after a candidate, and in between after the negative."""

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        value = -1.0 if "Agincourt" in segments[0] else -3.0 if "prisoner" in segments[0] else -2.5
        return Likelihood([-2.0, *([value] * (len(segments) - 1))], 10)


def test_by_likelihood_a_requirement_is_met_above_half_way() -> None:
    asker = Asker(Likely(lambda *_: Completion("", "stop", 0, 0, 0)), 1, "k")
    (judged,) = asyncio.run(judge_requirements(PAIR, ANALYSIS, [rewritten(ANALYSIS)], "likelihood", asker))
    assert {j.score for j in judged.requirements} == {-0.5}
    assert asker.usage.requests == 3  # positive, a candidate, the negative: all requirements in one request each


def test_margins_by_hand() -> None:
    assert by_margin([-1.0, -3.0], [-1.0, -1.0], [-3.0, -3.0]) == [1.0, -1.0]


def test_scores_of_the_broken_and_of_the_other_critical_requirements() -> None:
    judgements = [Judgement(requirement_id=n, score=s) for n, s in ((1, 2.0), (2, -1.0), (3, -5.0))]
    assert judgement_scores(Judged(judgements), ANALYSIS, broken=2) == {"target_met": -1.0, "others_met": 2.0}
    assert judgement_scores(Judged(judgements[1:2]), ANALYSIS, broken=2) == {"target_met": -1.0}
    assert judgement_scores(Judged([]), ANALYSIS, broken=2) == {}
    uncertain = judgement_scores(Judged(judgements), ANALYSIS, broken=2, certain=False)
    assert uncertain == {"target_likely": -1.0, "others_likely": 2.0}
    asked = judgement_scores(Judged(judgements, answers=-3.0), ANALYSIS, broken=2)
    assert asked == {"target_met": -1.0, "others_met": 2.0, "answers": -3.0}


def test_a_moot_requirement_does_not_count_against_a_negative() -> None:
    moot = Judgement(requirement_id=1, score=-4.0, moot=True)
    broken = Judgement(requirement_id=2, score=-1.0)
    assert judgement_scores(Judged([moot, broken]), ANALYSIS, broken=2)["others_met"] == MOST_LOG_ODDS
    assert judgement_scores(Judged([moot, broken]), ANALYSIS, broken=1)["target_met"] == -4.0


def test_query_scores_compare_with_the_positive() -> None:
    asker = Asker(Likely(lambda *_: Completion("", "stop", 0, 0, 0)), 1, "k")
    (scores,) = asyncio.run(query_scores(PAIR, [rewritten(ANALYSIS)], asker))
    assert scores["likelihood_margin"] == pytest.approx(1.5)
    assert scores["fluency"] == 0
