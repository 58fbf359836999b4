"""The plan: what is left, extrapolated from what was done."""

from causalneg.generation.plan import Plan, extrapolate
from causalneg.records import Outcome


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
