"""Drafts that lack a score: it is computed anew where that needs no LLM, and asked for where it does; none passes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from generation_samples import encode, pairs, style
from test_partial_failures import Faulty, drafts_of, edited, last

from causalneg.config import GateSettings, GenerateSettings
from causalneg.generation import select
from causalneg.generation.completion import complete
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.finish import decided
from causalneg.generation.rows import Procedure, Step
from causalneg.generation.scoring import Scorer
from causalneg.generation.select import Gate, MissingScoreError
from causalneg.records import Negative

PROCEDURE = Procedure(mode="edit", judge="yes_no", likelihoods=True)


def without(drafts: Drafts, *scores: str) -> dict[str, Step]:
    """Take scores out of the drafts, as if they were made before there was a gate for them; return what was there."""
    before = last(drafts)

    def stripped(negative: Negative) -> Negative:
        kept = {name: value for name, value in negative.scores.items() if name not in scores}
        return negative.model_copy(update={"scores": kept})

    rows = [s.model_copy(update={"negatives": [stripped(n) for n in s.negatives]}) for s in before.values()]
    drafts.write_step(STEPS[-1], "000000", rows)
    return before


def completed(drafts: Drafts, make: Callable[[], Scorer] = lambda: Scorer(encode, style()), *, may_open: bool) -> int:
    return complete(drafts, PROCEDURE, GateSettings(), make, may_open)


def no_scorer() -> Scorer:
    raise AssertionError("nothing has to be computed")


@pytest.fixture
def drafts(tmp_path: Path) -> Drafts:
    drafts = drafts_of(tmp_path, pairs(2))
    edited(drafts, Faulty())
    return drafts


def test_whole_drafts_are_left_alone(drafts: Drafts) -> None:
    before = last(drafts)
    assert completed(drafts, no_scorer, may_open=True) == 0
    assert last(drafts) == before
    assert drafts.unfinished()[0] == []


@pytest.mark.parametrize("may_open", [True, False])
def test_scores_that_need_no_llm_are_computed_anew(drafts: Drafts, may_open: bool) -> None:
    before = without(drafts, "style_distance", "overlap", "relative_score", "details_left", "cosine")
    with pytest.raises(MissingScoreError):
        list(decided(drafts, GenerateSettings()))
    assert completed(drafts, may_open=may_open) == 0
    for pair_id, step in last(drafts).items():
        assert step.again == []
        for old, new in zip(before[pair_id].negatives, step.negatives, strict=True):
            assert new.scores == pytest.approx(old.scores)
            assert new.judgements == old.judgements
    assert drafts.unfinished()[0] == []
    assert list(decided(drafts, GenerateSettings()))


def test_scores_that_need_the_llm_open_their_pairs_for_the_last_step_alone(drafts: Drafts) -> None:
    before = without(drafts, "likelihood_margin")
    candidates = drafts.read_step(STEPS[1], "000000")
    assert completed(drafts, no_scorer, may_open=False) == 2
    assert drafts.unfinished()[0] == []  # nothing was touched
    assert completed(drafts, no_scorer, may_open=True) == 2
    assert drafts.unfinished()[0] == ["000000"]
    edited(drafts, engine := Faulty())
    assert not any("____" in text for text in engine.asked)  # nothing was chosen again
    assert drafts.read_step(STEPS[1], "000000") == candidates
    assert {p: s.negatives for p, s in last(drafts).items()} == {p: s.negatives for p, s in before.items()}


def test_a_gate_that_is_added_later_rejects_old_drafts(drafts: Drafts, monkeypatch: pytest.MonkeyPatch) -> None:
    without(drafts, "query_logprob")
    known = {n.rejected_by for _, steps in decided(drafts, GenerateSettings()) for s in steps for n in s.negatives}
    new = Gate("surprise", "query_logprob", "surprises", high=lambda _: -10.0, asks=True)
    monkeypatch.setattr(select, "GATES", (new, *select.GATES))
    with pytest.raises(MissingScoreError, match="query_logprob"):
        list(decided(drafts, GenerateSettings()))
    assert completed(drafts, no_scorer, may_open=True) == 2
    edited(drafts, Faulty())
    rows = [n for _, steps in decided(drafts, GenerateSettings()) for s in steps for n in s.negatives]
    assert "surprise" not in known
    assert {n.rejected_by for n in rows} == {"surprise"}


def test_one_that_failed_lacks_nothing_until_it_is_tried_again(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, pairs(1))
    edited(drafts, Faulty("Check the passage.", "Calais"))
    assert completed(drafts, no_scorer, may_open=True) == 0
    rows = [n for _, steps in decided(drafts, GenerateSettings()) for s in steps for n in s.negatives]
    assert sum(n.rejected_by == "failed" for n in rows) == 1


def test_what_is_retried_and_what_lacks_a_score_are_both_done_again(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, pairs(1))
    edited(drafts, Faulty("Check the passage.", "Calais"))
    without(drafts, "fluency")
    drafts.forget_failures()
    assert completed(drafts, no_scorer, may_open=True) == 1
    edited(drafts, Faulty())
    (step,) = last(drafts).values()
    assert not step.lost
    assert all("fluency" in n.scores and n.rejected_by is None for n in step.negatives)


def test_a_bound_without_its_score_is_refused() -> None:
    with pytest.raises(ValueError, match="max_cross_score needs cross_encoder"):
        GenerateSettings(gates=GateSettings(max_cross_score=0.9))
