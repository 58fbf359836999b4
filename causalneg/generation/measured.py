"""What the pairs that are done took and gave, as the plan shows it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from causalneg.config import EngineSettings, GenerateSettings
from causalneg.generation.batches import verdict
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.rows import Usage
from causalneg.generation.select import cases, select
from causalneg.records import Outcome

_REASONS = 5  # of failures that are shown
_MOST_SAID = 160  # characters of a reason
_MILLION = 1_000_000


@dataclass(frozen=True)
class Measured:
    """What some pairs took and gave. Verdicts are by the gates alone: duplicates are found when all pairs are done.

    Attributes:
        outcomes: of the pairs.
        failures: kind and message of what stopped failed pairs, counted.
    """

    outcomes: list[Outcome]
    failures: Counter[tuple[str, str]]

    @property
    def usage(self) -> Usage:
        """Requests and tokens of all of them."""
        return sum((Usage(**o.model_dump(include=set(Usage.model_fields))) for o in self.outcomes), Usage())

    @property
    def accepted(self) -> int:
        """Negatives that were accepted."""
        return sum(o.accepted for o in self.outcomes)

    @property
    def negatives(self) -> int:
        """Negatives that were made."""
        return self.accepted + sum(o.rejected for o in self.outcomes)

    @property
    def accepted_pairs(self) -> int:
        """Pairs with an accepted negative."""
        return sum(o.status == "accepted" for o in self.outcomes)


def measure(drafts: Drafts, settings: GenerateSettings) -> Measured:
    """Look at the pairs that are done, with the verdicts that the gates of now give."""
    outcomes, failures, procedure = list[Outcome](), Counter[tuple[str, str]](), drafts.procedure()
    for batch in drafts.batches():
        steps = drafts.read_step(STEPS[-1], batch)
        for pair_id, outcome in drafts.read_outcomes(batch).items():
            step = steps[pair_id]
            decided = step.model_copy(update={"negatives": select(cases(step, procedure), settings)})
            outcomes.append(outcome.model_copy(update=verdict(decided)))
            if step.failure:
                failures[step.failure.kind, step.failure.message] += 1
    return Measured(outcomes, failures)


def cost(
    prompt_tokens: float, generated_tokens: float, prompt_price: float | None, generated_price: float | None
) -> float | None:
    """Return what tokens cost, in the currency of the prices of a million; None without prices."""
    if prompt_price is None and generated_price is None:
        return None
    return ((prompt_price or 0) * prompt_tokens + (generated_price or 0) * generated_tokens) / _MILLION


def spent(usage: Usage, engine: EngineSettings) -> float | None:
    """Return what requests cost by the prices of the settings; None without prices."""
    return cost(usage.prompt_tokens, usage.generated_tokens, engine.prompt_price, engine.generated_price)


def money(value: float | None) -> str:
    """Return an amount in words; a small one with more places, as that of a single negative."""
    if value is None:
        return "no prices are set"
    return f"{value:,.2f}" if value >= 1 else f"{value:.4f}"


def words_of(usage: Usage, engine: EngineSettings) -> str:
    """Return in words what requests took."""
    amount, tokens = spent(usage, engine), usage.prompt_tokens + usage.generated_tokens
    return f"{usage.requests:,} calls, {tokens:,} tokens" + ("" if amount is None else f", cost {money(amount)}")


def _share(part: int, whole: int, unit: str) -> str:
    return f"{part:,} of {whole:,} {unit} ({part / max(1, whole):.0%})"


def measured_rows(measured: Measured, engine: EngineSettings) -> list[list[str]]:
    """Return what is measured as rows of a table."""
    usage, accepted = measured.usage, measured.accepted
    tokens, amount = usage.prompt_tokens + usage.generated_tokens, spent(usage, engine)
    each, price = "none is accepted", "none is accepted"
    if accepted:
        each, price = f"{tokens / accepted:,.0f}", money(None if amount is None else amount / accepted)
    return [
        ["pairs measured", f"{len(measured.outcomes):,}"],
        ["accepted negatives", _share(accepted, measured.negatives, "negatives")],
        ["pairs with one of them", _share(measured.accepted_pairs, len(measured.outcomes), "pairs")],
        ["failed pairs", _share(measured.failures.total(), len(measured.outcomes), "pairs")],
        ["LLM calls, so far", f"{usage.requests:,}"],
        ["prompt tokens, so far", f"{usage.prompt_tokens:,}"],
        ["generated tokens, so far", f"{usage.generated_tokens:,}"],
        ["cost, so far", money(amount)],
        ["tokens per accepted negative", each],
        ["cost per accepted negative", price],
    ]


def failure_lines(failures: Counter[tuple[str, str]]) -> Iterable[str]:
    """Yield the most frequent reasons for which pairs failed, each with the number of its pairs."""
    for (kind, message), count in failures.most_common(_REASONS):
        said = message if len(message) <= _MOST_SAID else f"{message[:_MOST_SAID]}…"
        yield f"{count} failed: {kind}: {said}"
    if len(failures) > _REASONS:
        others = failures.total() - sum(count for _, count in failures.most_common(_REASONS))
        yield f"{others} failed for {len(failures) - _REASONS} other reasons"
