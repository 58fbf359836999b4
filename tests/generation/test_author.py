"""Pairs through all steps: lineage and scores in every row, failures as rows, deaths charged to the pair that kills."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from generation_samples import LINEAGE, PAIR, ScriptedEngine, encode, first_option, is_judgement, pairs, style, verdicts

from causalneg.config import EngineSettings, GenerateSettings
from causalneg.errors import UserError
from causalneg.generation.author import Author
from causalneg.generation.batches import BatchWorker
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.edit.author import EditAuthor
from causalneg.generation.engines import Completion, EngineDeadError, EngineError, Likelihood
from causalneg.generation.finish import decided, write_batch
from causalneg.generation.ledger import Running
from causalneg.generation.rows import Pair, Step
from causalneg.generation.survival import MOST_DEATHS
from causalneg.records import Negative, Operation, Outcome
from causalneg.workspace import Workspace

SETTINGS = GenerateSettings(engine=EngineSettings(max_attempts=2))


def author_of(engine: Any, settings: GenerateSettings = SETTINGS) -> Author:  # noqa: ANN401 - scripted engines
    writer = EditAuthor(encode, settings, LINEAGE, by_likelihood=True)
    return Author(engine, writer, "likelihood", encode, style(), settings, likelihoods=True)


def through(engine: Any, pair: Pair = PAIR) -> list[Step]:  # noqa: ANN401 - scripted engines
    async def run() -> list[Step]:
        author, rows = author_of(engine), list[Step]()
        for name in STEPS:
            rows.append(await author.step(name, pair, rows[-1] if rows else None))
        return rows

    return asyncio.run(run())


def drafts_with(folder: Path, count: int, size: int = 4) -> Drafts:
    drafts = Drafts(Workspace(str(folder)), "key")
    drafts.write_pairs(pairs(count), size)
    return drafts


def worker_of(drafts: Drafts, make_engine: Callable[[], Any]) -> BatchWorker:
    async def make() -> tuple[Author, Callable[[], Awaitable[None]]]:
        engine = make_engine()
        return author_of(engine), engine.close

    return BatchWorker(drafts, make, SETTINGS)


def test_a_pair_becomes_an_analysis_and_scored_negatives() -> None:
    analysed, drafted, scored = through(ScriptedEngine(first_option))
    assert analysed.analysis is not None
    assert 4 <= len(analysed.analysis.requirements) <= 8
    assert drafted.negatives
    operations = {n.edit.operation for n in scored.negatives if n.edit}
    assert operations == {Operation.DROP, Operation.GRAFT, Operation.REPLACE}
    ids = {r.id for r in analysed.analysis.requirements}
    for negative in scored.negatives:
        assert negative.lineage == LINEAGE
        assert negative.analysis_id == analysed.analysis.id
        assert negative.requirement_id in ids
        assert {"likelihood_margin", "fluency", "relative_score", "hardness", "length_ratio", "target_met"} <= set(
            negative.scores
        )
        assert negative.judgements


def test_each_step_counts_what_it_spent() -> None:
    rows = through(ScriptedEngine(first_option))
    assert all(row.usage.requests > 0 and row.usage.cached_tokens > 0 for row in (rows[0], rows[2]))


def test_the_same_pair_gives_the_same_ids() -> None:
    first, second = through(ScriptedEngine(first_option)), through(ScriptedEngine(first_option))
    assert [n.id for n in first[-1].negatives] == [n.id for n in second[-1].negatives]


def test_the_evidence_is_gone_and_a_graft_comes_from_the_references() -> None:
    scored = through(ScriptedEngine(first_option))[-1]
    by_operation: dict[Operation, Negative] = {n.edit.operation: n for n in scored.negatives if n.edit}
    assert "prisoner" not in by_operation[Operation.DROP].text
    assert "blocked the road to Calais" in by_operation[Operation.GRAFT].text
    assert "1415" not in by_operation[Operation.REPLACE].full_text


def refusing(*_: Any) -> Completion:
    raise EngineError("too_long", "the prompt is too long", retryable=False)


def stumbling(*_: Any) -> Completion:
    raise IndexError("string index out of range")


@pytest.mark.parametrize(
    ("answer", "kind", "retryable", "attempts"),
    [
        (lambda *_: Completion('{"choice":', "length", 50, 0, 16), "length", True, 2),
        (lambda *_: Completion("nonsense", "stop", 50, 0, 16), "invalid_json", True, 2),
        (refusing, "too_long", False, 1),
    ],
)
def test_a_choice_that_goes_wrong_loses_what_was_to_be_chosen(
    answer: Callable[..., Completion], kind: str, retryable: bool, attempts: int
) -> None:
    last = through(ScriptedEngine(answer))[-1]
    assert last.failure is None
    assert {(f.kind, f.retryable, f.attempts) for f in last.lost} == {(kind, retryable, attempts)}
    assert {f.part for f in last.lost} == {"replace 2"}
    assert {n.edit.operation for n in last.negatives if n.edit} == {Operation.DROP, Operation.GRAFT}  # one graft only


def test_what_goes_wrong_unforeseen_is_a_failure_row_of_its_pair() -> None:
    last = through(ScriptedEngine(stumbling))[-1]
    assert last.failure is not None
    assert (last.failure.kind, last.failure.retryable, last.failure.attempts) == ("IndexError", False, 1)
    assert last.negatives == []


def test_a_users_mistake_stops_the_work() -> None:
    def deny(*_: Any) -> Completion:
        raise UserError("the key is wrong")

    with pytest.raises(UserError):
        through(ScriptedEngine(deny))


def test_a_batch_is_done_once_and_its_steps_are_kept(tmp_path: Path) -> None:
    drafts, engine = drafts_with(tmp_path, 3), ScriptedEngine(first_option)
    rows = asyncio.run(worker_of(drafts, lambda: engine).work("000000"))
    assert [row.input_id for row in rows] == ["pair-0", "pair-1", "pair-2"]
    assert drafts.unfinished() == ([], rows)
    asked = len(engine.chats)
    assert asyncio.run(worker_of(drafts, lambda: engine).work("000000")) == rows
    assert len(engine.chats) == asked


def test_a_step_that_is_kept_is_not_paid_again(tmp_path: Path) -> None:
    drafts = drafts_with(tmp_path, 2)
    first = ScriptedEngine(first_option)
    asyncio.run(worker_of(drafts, lambda: first).work("000000"))
    drafts.workspace.remove("drafts/key/outcomes")
    drafts.workspace.remove("drafts/key/scored")
    second = ScriptedEngine(first_option)
    asyncio.run(worker_of(drafts, lambda: second).work("000000"))
    assert len(second.chats) == 0  # choosing is over; only likelihoods of the last step were asked for again


class Mortal(ScriptedEngine):
    """Dies at a query that names the poison; remembers how often."""

    deaths = 0

    def __init__(self, poison: str) -> None:
        super().__init__(first_option)
        self.poison, self.dead = poison, False

    async def likelihood(self, segments: list[str]) -> Likelihood:  # type: ignore[override]
        await asyncio.sleep(0)
        if self.poison in segments[-1] or self.dead:
            Mortal.deaths += not self.dead
            self.dead = True
            raise EngineDeadError("the engine is gone")
        return await super().likelihood(segments)


def test_a_pair_that_kills_the_engine_three_times_is_set_aside_and_no_other(tmp_path: Path) -> None:
    Mortal.deaths = 0
    rows = pairs(8)
    poisoned = rows[5].model_copy(update={"query": rows[5].query.model_copy(update={"text": "Who is the POISON?"})})
    rows[5] = poisoned
    drafts = Drafts(Workspace(str(tmp_path)), "key")
    drafts.write_pairs(rows, 4)

    async def both() -> None:
        worker = worker_of(drafts, lambda: Mortal("POISON"))
        await asyncio.gather(*(worker.work(batch) for batch in drafts.batches()))

    asyncio.run(both())
    left, done = drafts.unfinished()
    assert left == []
    assert {o.input_id: o.failure for o in done if o.status == "failed"} == {poisoned.id: "engine_killed"}
    assert len(done) == 8
    assert Mortal.deaths == MOST_DEATHS


def test_a_death_is_not_charged_to_those_that_wait_for_their_turn(tmp_path: Path) -> None:
    """While suspects wait to work alone, another may kill the engine that they would have worked with."""
    most: dict[str, int] = {}

    class Watched(Drafts):
        def write_running(self, batch: str, running: Running) -> None:
            most.update({pair: max(count, most.get(pair, 0)) for pair, count in running.deaths.items()})
            super().write_running(batch, running)

    rows = pairs(12)
    rows[0] = rows[0].model_copy(update={"query": rows[0].query.model_copy(update={"text": "Who is the POISON?"})})
    drafts = Watched(Workspace(str(tmp_path)), "key")
    drafts.write_pairs(rows, 1)

    async def all_batches() -> None:
        worker = worker_of(drafts, lambda: Mortal("POISON"))
        await asyncio.gather(*(worker.work(batch) for batch in drafts.batches()))

    asyncio.run(all_batches())
    assert most == {p.id: MOST_DEATHS - 1 if p is rows[0] else 1 for p in rows}  # the last death ends its work


def test_a_worker_that_died_leaves_its_pairs_to_be_worked_on_alone(tmp_path: Path) -> None:
    drafts = drafts_with(tmp_path, 4)
    ids = [p.id for p in drafts.pairs("000000")]
    drafts.write_running("000000", Running(now=[ids[2]], deaths={ids[2]: MOST_DEATHS - 1}))
    rows = asyncio.run(worker_of(drafts, lambda: ScriptedEngine(first_option)).work("000000"))
    assert [row.failure for row in rows] == [None, None, "engine_killed", None]
    assert drafts.running("000000") == Running()


def test_retrying_takes_back_retryable_failures_only(tmp_path: Path) -> None:
    drafts = drafts_with(tmp_path, 4)
    cut = ScriptedEngine(lambda *_: Completion("{", "length", 5, 0, 5))
    asyncio.run(worker_of(drafts, lambda: cut).work("000000"))
    assert drafts.forget_failures() == 4
    assert drafts.unfinished()[0] == ["000000"]
    rows = asyncio.run(worker_of(drafts, lambda: ScriptedEngine(first_option)).work("000000"))
    assert all(row.failure is None for row in rows)
    assert drafts.forget_failures() == 0


def test_a_batch_cut_off_before_its_outcomes_is_not_done(tmp_path: Path) -> None:
    drafts = drafts_with(tmp_path, 2)
    asyncio.run(worker_of(drafts, lambda: ScriptedEngine(first_option)).work("000000"))
    drafts.workspace.remove("drafts/key/outcomes/000000.parquet")
    assert drafts.unfinished() == (["000000"], [])


def test_drafts_and_rows_may_lie_in_an_object_store() -> None:
    workspace = Workspace("memory://generation")
    drafts = Drafts(workspace, "key")
    drafts.write_pairs(pairs(5), 2)

    async def all_batches() -> None:
        worker = worker_of(drafts, lambda: ScriptedEngine(first_option))
        await asyncio.gather(*(worker.work(batch) for batch in drafts.batches()))

    asyncio.run(all_batches())
    rows = [o for batch, steps in decided(drafts, SETTINGS) for o in write_batch(workspace, drafts, batch, steps)]
    assert [row.input_id for row in rows] == [p.id for p in pairs(5)]
    assert list(workspace.read_rows("outcomes", Outcome)) == rows
    assert len(list(workspace.read_rows("negatives", Negative))) == sum(row.accepted + row.rejected for row in rows)
    workspace.remove("")


def test_a_cross_encoder_scores_negatives_beside_the_positive() -> None:
    async def run() -> Step:
        engine, writer = ScriptedEngine(first_option), EditAuthor(encode, SETTINGS, LINEAGE, by_likelihood=True)
        author = Author(
            engine,
            writer,
            "likelihood",
            encode,
            style(),
            SETTINGS,
            likelihoods=True,
            rescore=lambda _query, texts: [2.0 if text == PAIR.positive.full_text else 1.0 for text in texts],
        )
        step = None
        for name in STEPS:
            step = await author.step(name, PAIR, step)
        assert step is not None
        return step

    negatives = asyncio.run(run()).negatives
    assert negatives
    assert {(n.scores["cross_score"], n.scores["cross_relative_score"]) for n in negatives} == {(1.0, 0.5)}


def test_without_likelihoods_the_evidence_is_asked_for_and_no_likelihood_is_scored() -> None:
    class Silent(ScriptedEngine):
        async def likelihood(self, segments: Sequence[str]) -> Likelihood:
            raise AssertionError("it tells none")

    def answer(number: int, schema: dict[str, Any]) -> Completion:
        if is_judgement(schema):
            return Completion(json.dumps(verdicts(schema)), "stop", 5, 0, 5)
        return first_option(number, schema)

    async def run() -> Step:
        writer = EditAuthor(encode, SETTINGS, LINEAGE, by_likelihood=False)
        author = Author(Silent(answer), writer, "yes_no", encode, style(), SETTINGS, likelihoods=False)
        step = None
        for name in STEPS:
            step = await author.step(name, PAIR, step)
        assert step is not None
        return step

    step = asyncio.run(run())
    assert step.failure is None
    assert all("likelihood_margin" not in n.scores and n.scores["target_met"] < 0 for n in step.negatives)
