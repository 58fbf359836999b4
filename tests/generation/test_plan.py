"""The plan: what is left, extrapolated from what was done."""

from collections import Counter
from pathlib import Path

from generation_samples import pairs
from test_partial_failures import SETTINGS, Faulty, drafts_of, edited

from causalneg.config import EngineSettings, GateSettings
from causalneg.generation.measured import Measured, failure_lines, measure, measured_rows, words_of
from causalneg.generation.plan import Plan, extrapolate
from causalneg.generation.rows import Usage
from causalneg.records import Outcome

# Nothing but the number of negatives is looked at.
OPEN = GateSettings(
    min_length_ratio=0, max_length_ratio=9, max_style_distance=99, max_overlap=9, max_query_copied=1,
    max_answer_left=99, max_candidates_left=99, max_details_left=1, min_likelihood_margin=-9, min_replaced_margin=-9,
    max_target_met=99, min_others_met=-99, judge_margin=0, min_fluency=-99, max_relative_score=9, max_duplicate=9,
)  # fmt: skip


def outcome(number: int, prompt: int, generated: int) -> Outcome:
    return Outcome(
        input_id=str(number),
        query_id="q",
        positive_id="p",
        status="accepted",
        accepted=1,
        rejected=0,
        requests=10,
        prompt_tokens=prompt,
        cached_tokens=0,
        generated_tokens=generated,
    )


DONE = [outcome(1, 1000, 100), outcome(2, 3000, 300)]


def test_what_is_left_is_like_what_was_done() -> None:
    assert extrapolate(DONE, left=10, seconds=4.0) == Plan(10, 100, 20_000, 2_000, 20.0, None)


def test_engines_share_the_time_and_not_the_tokens() -> None:
    plan = extrapolate(DONE, left=10, seconds=4.0, replicas=4)
    assert (plan.seconds, plan.prompt_tokens) == (5.0, 20_000)


def test_prices_are_of_a_million_tokens() -> None:
    plan = extrapolate(DONE, left=10, seconds=4.0, prompt_price=5.0, generated_price=50.0)
    assert plan.cost == 0.2
    assert extrapolate(DONE, 10, 4.0, prompt_price=0.0).cost == 0.0  # a local endpoint costs nothing


def test_with_nothing_done_nothing_is_known() -> None:
    assert extrapolate([], left=10, seconds=0.0) == Plan(10, 0, 0, 0, 0.0, None)


def measured(folder: Path, engine: Faulty, count: int = 2) -> Measured:
    edited(drafts := drafts_of(folder, pairs(count)), engine)
    return measure(drafts, SETTINGS)


def rows_of(found: Measured, **prices: float) -> dict[str, str]:
    return dict(measured_rows(found, EngineSettings(**prices)))


def test_what_was_measured_is_shown_with_the_price_of_an_accepted_negative(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"gates": OPEN, "negatives_per_query": 2})
    edited(drafts := drafts_of(tmp_path, pairs(2)), Faulty())
    found = measure(drafts, settings)
    outcomes = drafts.read_outcomes("000000").values()
    accepted, tokens = found.accepted, sum(o.prompt_tokens + o.generated_tokens for o in outcomes)
    assert (accepted, found.accepted_pairs) == (2 * 2, 2)
    assert accepted < found.negatives
    rows = rows_of(found, prompt_price=1000.0, generated_price=1000.0)
    assert rows["pairs measured"] == "2"
    share = accepted / found.negatives
    assert rows["accepted negatives"] == f"{accepted} of {found.negatives} negatives ({share:.0%})"
    assert rows["pairs with one of them"] == "2 of 2 pairs (100%)"
    assert rows["failed pairs"] == "0 of 2 pairs (0%)"
    assert rows["LLM calls, so far"] == str(sum(o.requests for o in outcomes))
    assert rows["tokens per accepted negative"] == f"{tokens / accepted:,.0f}"
    assert rows["cost per accepted negative"] == f"{tokens / accepted / 1000:.4f}"
    assert rows_of(found)["cost per accepted negative"] == "no prices are set"


def test_verdicts_are_those_of_the_gates_of_now(tmp_path: Path) -> None:
    edited(drafts := drafts_of(tmp_path, pairs(1)), Faulty())
    strict = SETTINGS.model_copy(update={"gates": GateSettings(max_length_ratio=0.01)})
    found = measure(drafts, strict)
    assert (found.accepted, found.accepted_pairs) == (0, 0)
    assert rows_of(found, prompt_price=1.0)["cost per accepted negative"] == "none is accepted"


def test_failed_pairs_are_shown_with_their_reasons(tmp_path: Path) -> None:
    found = measured(tmp_path, Faulty("A question answered"), 3)
    assert rows_of(found)["failed pairs"] == "3 of 3 pairs (100%)"
    assert list(failure_lines(found.failures)) == ["3 failed: rate_limited: too many requests"]


def test_many_reasons_are_summed_up() -> None:
    failures = Counter({("refused", f"{number} {'x' * 300}"): 9 - number for number in range(7)})
    lines = list(failure_lines(failures))
    assert len(lines) == 6
    assert lines[0].startswith("9 failed: refused: 0 xx")
    assert len(lines[0]) < 200
    assert lines[-1] == "7 failed for 2 other reasons"


def test_the_check_of_the_model_has_its_calls_tokens_and_cost() -> None:
    usage = Usage(requests=24, prompt_tokens=9_000, generated_tokens=1_000)
    assert words_of(usage, EngineSettings()) == "24 calls, 10,000 tokens"
    assert words_of(usage, EngineSettings(prompt_price=100.0)) == "24 calls, 10,000 tokens, cost 0.9000"
