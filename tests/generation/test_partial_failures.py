"""What fails for one negative is lost for that one alone, and a retry pays for nothing that is kept."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import free_samples
import pytest
from generation_samples import LINEAGE, PAIR, ScriptedEngine, encode, first_option, is_judgement, pairs, style, verdicts

from causalneg.config import EngineSettings, GenerateSettings
from causalneg.errors import UserError
from causalneg.generation.author import Author, Writer
from causalneg.generation.batches import BatchWorker
from causalneg.generation.drafts import STEPS, Drafts, stop_where_all_refused
from causalneg.generation.edit.author import EditAuthor
from causalneg.generation.engines import Completion, EngineError, Likelihood
from causalneg.generation.finish import decided, write_batch
from causalneg.generation.free.author import FreeAuthor
from causalneg.generation.judge import Method
from causalneg.generation.rows import Pair, Step
from causalneg.records import Failure, Negative, Outcome
from causalneg.workspace import Workspace

SETTINGS = GenerateSettings(engine=EngineSettings(max_attempts=1))
LOST = EngineError("rate_limited", "too many requests", retryable=True)


def answer(_number: int, schema: dict[str, Any]) -> Completion:
    """Judge that the broken requirement is not met and choose the first option."""
    if is_judgement(schema):
        return Completion(json.dumps(verdicts(schema)), "stop", 50, 0, 5)
    return first_option(_number, schema)


class Faulty(ScriptedEngine):
    """Fails at requests whose text has all of some words, as long as it is told to.

    Attributes:
        asked: the text of each request.
    """

    def __init__(self, *words: str, script: Callable[..., Completion] = answer, error: Exception = LOST) -> None:
        super().__init__(script)
        self.words, self.error = words, error
        self.asked: list[str] = []

    def _look(self, text: str) -> None:
        self.asked.append(text)
        if self.words and all(word in text for word in self.words):
            raise self.error

    async def complete(self, chat: list[dict[str, str]], *arguments: Any, **named: Any) -> Completion:
        """Fail or answer."""
        self._look(chat[-1]["content"])
        return await super().complete(chat, *arguments, **named)

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        """Fail or tell."""
        self._look("".join(segments))
        return await super().likelihood(segments)


def worker(drafts: Drafts, engine: Faulty, writer: Writer, method: Method) -> BatchWorker:
    async def make() -> tuple[Author, Callable[[], Awaitable[None]]]:
        return Author(engine, writer, method, encode, style(), SETTINGS, likelihoods=True), engine.close

    return BatchWorker(drafts, make, SETTINGS)


def edited(drafts: Drafts, engine: Faulty, method: Method = "yes_no") -> list[Outcome]:
    """Take the pairs of the only batch through all steps in edit mode."""
    writer = EditAuthor(encode, SETTINGS, LINEAGE, by_likelihood=True)
    return asyncio.run(worker(drafts, engine, writer, method).work("000000"))


def drafts_of(folder: Path, rows: Sequence[Pair]) -> Drafts:
    drafts = Drafts(Workspace(str(folder)), "key")
    drafts.write_pairs(rows, 8)
    return drafts


def last(drafts: Drafts) -> dict[str, Step]:
    return drafts.read_step(STEPS[-1], "000000")


def check_rows(drafts: Drafts) -> tuple[list[Negative], list[Failure]]:
    """Write the final rows, check that they add up, and return negatives and failures."""
    workspace = drafts.workspace
    rows = [o for batch, steps in decided(drafts, SETTINGS) for o in write_batch(workspace, drafts, batch, steps)]
    negatives = list(workspace.read_rows("negatives", Negative))
    assert sum(o.accepted + o.rejected for o in rows) == len(negatives)
    return negatives, list(workspace.read_rows("failures", Failure))


def test_a_judgement_that_is_refused_loses_its_negative_alone(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, pairs(2))
    refusal = EngineError("refused", "answered 400: no", retryable=False)
    edited(drafts, engine := Faulty("Check the passage.", "Calais", error=refusal))
    candidates = drafts.read_step(STEPS[1], "000000")
    for pair_id, step in last(drafts).items():
        assert step.failure is None
        assert [n.id for n in step.negatives] == [n.id for n in candidates[pair_id].negatives]
        (failure,) = step.lost
        (lost,) = (n for n in step.negatives if "Calais" in n.text)
        assert (failure.part, failure.kind, failure.input_id) == (lost.id, "refused", pair_id)
        assert lost.scores  # what needs no LLM is known all the same
        assert all(n.judgements for n in step.negatives if n.id != lost.id)
    negatives, failures = check_rows(drafts)
    assert {n.rejected_by for n in negatives if "Calais" in n.text} == {"failed"}
    assert {n.reason for n in negatives if "Calais" in n.text} == {"answered 400: no"}
    assert len(failures) == 2

    # Once more: only what was lost is asked for, analysis and candidates stay, and nothing is left of the failure.
    spent = sum(o.requests for o in drafts.read_outcomes("000000").values())
    assert drafts.forget_failures() == 2
    again = edited(drafts, healthy := Faulty())
    assert len(engine.asked) > len(healthy.asked) > 0
    others = [text for text in healthy.asked if "Calais" not in text]
    assert len(others) == 2  # the likelihood of each positive, with which that of the negative is compared
    assert all(PAIR.positive.text in text for text in others)
    assert drafts.read_step(STEPS[1], "000000") == candidates
    assert [step.lost for step in last(drafts).values()] == [[], []]
    assert all(n.judgements and n.rejected_by is None for step in last(drafts).values() for n in step.negatives)
    assert sum(o.requests for o in again) == spent + len(healthy.asked)
    assert not check_rows(drafts)[1]


def test_by_likelihood_too(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, pairs(1))
    edited(drafts, Faulty("answered by this passage", "Calais"), "likelihood")
    (step,) = last(drafts).values()
    assert [f.kind for f in step.lost] == ["rate_limited"]
    assert sum(n.rejected_by == "failed" for n in step.negatives) == 1 < len(step.negatives)
    drafts.forget_failures()
    edited(drafts, Faulty(), "likelihood")
    assert not last(drafts)["pair-0"].lost


def test_a_pair_fails_where_none_of_its_negatives_could_be_judged(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, pairs(1))
    (outcome,) = edited(drafts, Faulty("Check the passage."))
    assert (outcome.status, outcome.failure) == ("failed", "rate_limited")
    candidates = drafts.read_step(STEPS[1], "000000")
    assert drafts.forget_failures() == 1
    (outcome,) = edited(drafts, Faulty())
    assert outcome.failure is None
    assert drafts.read_step(STEPS[1], "000000") == candidates


def test_a_choice_that_failed_is_made_again_and_no_other(tmp_path: Path) -> None:
    whole = drafts_of(tmp_path / "whole", pairs(1))
    edited(whole, Faulty())
    drafts = drafts_of(tmp_path / "parts", pairs(1))
    edited(drafts, Faulty("____", "26 August 1346"))
    assert [f.part for f in last(drafts)["pair-0"].lost] == ["replace 2"]
    drafts.forget_failures()
    edited(drafts, healthy := Faulty())
    assert sum("____" in text for text in healthy.asked) == 1
    ids = {n.id for n in last(drafts)["pair-0"].negatives}
    assert ids == {n.id for n in last(whole)["pair-0"].negatives}
    assert not last(drafts)["pair-0"].lost


def test_what_is_tried_again_may_fail_again_and_be_killed_in_between(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, pairs(1))
    edited(drafts, Faulty("Check the passage.", "Calais"))
    kept = [n for n in last(drafts)["pair-0"].negatives if n.rejected_by is None]
    drafts.forget_failures()
    assert drafts.unfinished()[0] == ["000000"]  # as it would be found after a kill
    edited(drafts, Faulty("Check the passage.", "Calais"))
    step = last(drafts)["pair-0"]
    assert [f.kind for f in step.lost] == ["rate_limited"]
    assert [n for n in step.negatives if n.rejected_by is None] == kept
    assert drafts.forget_failures() == 1


class Writing:
    """Analyses, writes a passage for each of the first tasks and judges.

    Args:
        fault: for a text of the request, the tasks whose passage can't be taken.
    """

    def __init__(self, fault: str = "", skipped: Sequence[int] = ()) -> None:
        self.fault, self.skipped, self.written = fault, skipped, 0

    def __call__(self, number: int, schema: dict[str, Any]) -> Completion:
        """Answer by the schema."""
        members = schema["properties"]
        if "requirements" in members:
            return Completion(json.dumps(free_samples.analysis_answer()), "stop", 50, 0, 50)
        if "passages" not in members:
            return answer(number, schema)
        tasks = members["passages"]["items"]["properties"]["task"]["enum"]
        skipped = [task for task in tasks if task in self.skipped and len(tasks) > 1]
        chosen = [task for task in tasks if task not in skipped][: members["passages"]["maxItems"]]
        passages = [free_samples.passage_answer(task, text=self._text()) for task in chosen]
        if self.fault and len(chosen) > 1:
            passages[1]["text"] = self.fault
        return Completion(json.dumps(free_samples.rewrite_answer(*passages, skipped=skipped)), "stop", 50, 0, 50)

    def _text(self) -> str:
        self.written += 1
        return f"The battle number {self.written} was fought in the rain of another year."


def rewritten(drafts: Drafts, engine: Faulty) -> Step:
    """Take the only pair through all steps in rewrite mode."""
    writer = FreeAuthor(SETTINGS, free_samples.PROFILE, free_samples.LINEAGE)
    asyncio.run(worker(drafts, engine, writer, "yes_no").work("000000"))
    return last(drafts)[free_samples.PAIR.id]


def writes(engine: Faulty) -> list[str]:
    """Return the requests for passages."""
    return [text for text in engine.asked if "<tasks>" in text]


def test_all_passages_of_a_pair_are_asked_for_at_once(tmp_path: Path) -> None:
    engine = Faulty(script=Writing())
    step = rewritten(drafts_of(tmp_path, [free_samples.PAIR]), engine)
    assert len(step.negatives) == 4, "each of two critical requirements in two ways"
    assert len(writes(engine)) == 1
    assert sum("Check the passage." in text for text in engine.asked) == 4


def test_a_passage_that_cannot_be_taken_is_asked_for_alone(tmp_path: Path) -> None:
    engine = Faulty(script=Writing(fault="Rain\x00 fell."))
    step = rewritten(drafts_of(tmp_path, [free_samples.PAIR]), engine)
    assert len(step.negatives) == 4
    assert not step.lost
    assert [text.endswith("Write 1 passage.") for text in writes(engine)] == [False, True]


def test_a_task_that_is_not_feasible_is_lost_with_its_reason(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, [free_samples.PAIR])
    step = rewritten(drafts, Faulty(script=Writing(skipped=[1])))
    assert len(step.negatives) == 3
    assert [(f.kind, f.message) for f in step.lost] == [("infeasible", "It would still answer.")]
    assert drafts.forget_failures() == 0, "it would be no more feasible"


def test_an_answer_that_is_cut_is_followed_by_one_for_each_task(tmp_path: Path) -> None:
    writing = Writing()

    def cut(number: int, schema: dict[str, Any]) -> Completion:
        done = writing(number, schema)
        many = "passages" in schema["properties"] and schema["properties"]["passages"]["maxItems"] > 1
        return Completion(done.text[:40], "length", 50, 0, 50) if many else done

    engine = Faulty(script=cut)
    step = rewritten(drafts_of(tmp_path, [free_samples.PAIR]), engine)
    assert len(step.negatives) == 4
    assert len(writes(engine)) == 5


def test_a_passage_that_could_not_be_written_is_written_later_and_no_other(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, [free_samples.PAIR])
    failing = Faulty("Write 1 passage.", script=Writing(fault="Rain\x00 fell."))
    first = rewritten(drafts, failing)
    assert (len(first.negatives), len(first.lost)) == (3, 1)
    drafts.forget_failures()
    healthy = Faulty(script=Writing())
    second = rewritten(drafts, healthy)
    assert not second.lost
    assert second.negatives[:3] == first.negatives
    assert len(second.negatives) == 4
    assert len(writes(healthy)) == 1
    assert writes(healthy)[0] == writes(failing)[-1]


def test_a_run_whose_pairs_are_all_refused_stops_and_can_be_run_again(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, pairs(2))
    refusal = EngineError("refused", "answered 400: temperature is not supported", retryable=False)
    edited(drafts, Faulty("A question answered", error=refusal))
    with pytest.raises(UserError, match="temperature is not supported"):
        stop_where_all_refused(drafts)
    assert drafts.unfinished() == (["000000"], [])
    assert all(o.failure is None for o in edited(drafts, Faulty()))
    stop_where_all_refused(drafts)


def test_a_run_that_lost_something_of_every_pair_to_a_refusal_stops_too(tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, pairs(2))
    edited(drafts, Faulty("____", error=EngineError("refused", "no chat here", retryable=False)))
    with pytest.raises(UserError, match="no chat here"):
        stop_where_all_refused(drafts)


def test_refused_pairs_beside_others_are_failures_that_can_be_retried(tmp_path: Path) -> None:
    rows = pairs(2)
    rows[1] = rows[1].model_copy(update={"query": rows[1].query.model_copy(update={"text": "Who was it at POISON?"})})
    drafts = drafts_of(tmp_path, rows)
    edited(drafts, Faulty("POISON", error=EngineError("refused", "answered 400", retryable=False)))
    stop_where_all_refused(drafts)
    assert drafts.forget_failures() == 1
    assert all(o.failure is None for o in edited(drafts, Faulty()))


def test_what_stops_the_run_loses_nothing_that_the_other_pairs_have_paid_for(tmp_path: Path) -> None:
    rows = pairs(3)
    rows[1] = rows[1].model_copy(update={"query": rows[1].query.model_copy(update={"text": "Who was it at POISON?"})})
    drafts = drafts_of(tmp_path, rows)
    unpaid = Faulty("POISON", error=UserError("the endpoint wants to be paid first"))
    with pytest.raises(UserError, match="paid first"):
        edited(drafts, unpaid)
    assert drafts.read_step(STEPS[0], "000000").keys() == {"pair-0", "pair-2"}
    assert drafts.unfinished()[0] == ["000000"]
    assert all(o.failure is None for o in edited(drafts, Faulty()))
