"""What generation made, as an object: pairs, negatives by gate, scores, tokens and source leakage."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from causalneg.generation.reporting.diversity import Diversity, DiversityTally
from causalneg.generation.reporting.examples import Example
from causalneg.generation.reporting.leakage import LeakageReport
from causalneg.generation.select import ACCEPTED
from causalneg.margins import relative_score
from causalneg.records import Facet, Failure, Mined, Negative, Outcome

_BINS = {"hardness": np.linspace(0, 1, 21), "relative_score": np.linspace(0, 1.5, 61)}
_GROUPS = ("accepted", "rejected", "mined")
UNKNOWN_GATE = "unnamed"


class FailureKind(BaseModel):
    """Failures of one kind.

    Attributes:
        count: failures.
        retryable: those of them that another attempt may mend.
        example: the message of one of them.
    """

    count: int
    retryable: int
    example: str


class Histogram(BaseModel):
    """Counts of scores in bins between `edges`; what lies outside counts in the first or last bin."""

    edges: list[float]
    accepted: list[int]
    rejected: list[int]
    mined: list[int]


class Tokens(BaseModel):
    """What was asked of the LLM; a rate is None where there is nothing to divide by.

    Attributes:
        requests: requests that were sent.
        prompt: tokens of the prompts.
        cached: those of them that the engine had in its prefix cache.
        generated: tokens that the LLM wrote.
        cache_hit_rate: cached as a share of prompt.
        generated_per_accepted: tokens written per accepted negative.
        total_per_accepted: tokens read and written per accepted negative.
        generated_per_second: tokens written per second.
        total_per_second: tokens read and written per second.
    """

    requests: int
    prompt: int
    cached: int
    generated: int
    cache_hit_rate: float | None
    generated_per_accepted: float | None
    total_per_accepted: float | None
    generated_per_second: float | None
    total_per_second: float | None


class Facts(BaseModel):
    """What is known about a run beside its rows.

    Attributes:
        model: the LLM.
        model_fingerprint: hash of its files, or what its endpoint tells of its revision.
        prompt_version: hash of the prompts' texts.
        profile: the data set's profile, by name and hash.
        sampling: how the LLM's answers were sampled: temperature, longest answer, seed.
        mode: edit or rewrite.
        mode_reason: why this mode, in words.
        judge: how requirements were judged.
        judge_reason: why so, in words.
        seconds: time that generating all of the pairs took, resumed runs together; None where it is not known.
        leakage: how far the source of the accepted negatives shows, if it was measured.
        examples: a few negatives of each verdict, with all that they are read beside.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    model_fingerprint: str = ""
    prompt_version: str
    profile: str
    sampling: dict[str, float | int | str]
    mode: str
    mode_reason: str = ""
    judge: str
    judge_reason: str = ""
    seconds: float | None = None
    leakage: LeakageReport | None = None
    examples: list[Example] = []


class GenerationReport(Facts):
    """What came out of generation.

    Attributes:
        pairs: pairs by outcome: accepted, rejected, failed.
        accepted_per_pair: pairs by how many accepted negatives they have.
        failures: by kind, the commonest first.
        negatives: negatives with a verdict.
        verdicts: negatives by the gate that rejected them, or `accepted`.
        gates_by_violation: the same for each kind of violation.
        gates_by_mode: the same for each mode.
        accepted_by: accepted negatives by violation, facet of the broken requirement, mode, operation and origin.
        hardness: share of the query's mined negatives that score below a negative.
        relative_score: score as a share of the positive's, 1 where they are equal.
        diversity: how the accepted negatives of a pair differ.
        tokens: what was asked of the LLM.
    """

    pairs: dict[str, int]
    accepted_per_pair: dict[int, int]
    failures: dict[str, FailureKind]
    negatives: int
    verdicts: dict[str, int]
    gates_by_violation: dict[str, dict[str, int]]
    gates_by_mode: dict[str, dict[str, int]]
    accepted_by: dict[str, dict[str, int]]
    hardness: Histogram
    relative_score: Histogram
    diversity: Diversity
    tokens: Tokens

    @property
    def accepted(self) -> int:
        """Accepted negatives."""
        return self.verdicts.get(ACCEPTED, 0)

    @property
    def rejected(self) -> int:
        """Rejected negatives."""
        return self.negatives - self.accepted


class _Bins:
    """Histograms of one score, by group."""

    def __init__(self, edges: np.ndarray) -> None:
        self._low, self._high, self._edges = float(edges[0]), float(edges[-1]), edges.tolist()
        self._counts = {group: [0] * (len(edges) - 1) for group in _GROUPS}

    def add(self, group: str, score: float | None) -> None:
        """Count a score; none, or one that is not a number, is left out."""
        if score is None or math.isnan(score):
            return
        counts = self._counts[group]
        share = (min(max(score, self._low), self._high) - self._low) / (self._high - self._low)
        counts[min(int(share * len(counts)), len(counts) - 1)] += 1

    def histogram(self) -> Histogram:
        """Return what was counted."""
        return Histogram(edges=self._edges, **self._counts)


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _nested(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Turn counts by outer and inner name into a dictionary of each outer name's counts."""
    nested: dict[str, dict[str, int]] = {}
    for (outer, inner), count in sorted(counts.items()):
        nested.setdefault(outer, {})[inner] = count
    return {outer: _by_count(inner) for outer, inner in nested.items()}


def _ratio(part: float, whole: float | None) -> float | None:
    return part / whole if whole else None


class Tally:
    """Counts while the rows pass by, in any order; its memory does not grow with them."""

    def __init__(self) -> None:
        self._pairs: Counter[str] = Counter(accepted=0, rejected=0, failed=0)
        self._accepted_per_pair: Counter[int] = Counter()
        self._usage: Counter[str] = Counter(requests=0, prompt=0, cached=0, generated=0)
        self._failures: Counter[str] = Counter()
        self._retryable: Counter[str] = Counter()
        self._failure_examples: dict[str, tuple[str, str]] = {}
        self._verdicts: Counter[str] = Counter()
        self._by_violation: Counter[tuple[str, str]] = Counter()
        self._by_mode: Counter[tuple[str, str]] = Counter()
        self._accepted_by: Counter[tuple[str, str]] = Counter()
        self._bins = {name: _Bins(edges) for name, edges in _BINS.items()}
        self._diversity = DiversityTally()

    def add_outcome(self, outcome: Outcome) -> None:
        """Count what became of a pair, and what it cost."""
        self._pairs[outcome.status] += 1
        self._accepted_per_pair[outcome.accepted] += 1
        self._usage.update(
            requests=outcome.requests,
            prompt=outcome.prompt_tokens,
            cached=outcome.cached_tokens,
            generated=outcome.generated_tokens,
        )

    def add_failure(self, failure: Failure) -> None:
        """Count a failure."""
        self._failures[failure.kind] += 1
        self._retryable[failure.kind] += failure.retryable
        example = (failure.input_id, failure.message)  # the one with the least id, whatever the order
        self._failure_examples[failure.kind] = min(example, self._failure_examples.get(failure.kind, example))

    def add_negative(self, negative: Negative, facet: Facet | None = None) -> None:
        """Count a generated negative.

        Args:
            negative: with its verdict.
            facet: of the requirement that it breaks; it stands in the analysis.
        """
        accepted = negative.verdict == "accepted"
        verdict = ACCEPTED if accepted else negative.rejected_by or UNKNOWN_GATE
        self._verdicts[verdict] += 1
        self._by_violation[str(negative.violation), verdict] += 1
        self._by_mode[negative.mode, verdict] += 1
        for name, bins in self._bins.items():
            bins.add("accepted" if accepted else "rejected", negative.scores.get(name))
        if accepted:
            self._accepted_by.update(_properties(negative, facet))

    def add_pair(self, negatives: Sequence[Negative]) -> None:
        """Count how the negatives of one pair differ."""
        self._diversity.add(negatives)

    def add_mined(self, row: Mined) -> None:
        """Count an accepted mined negative, to compare scores with.

        Only a cosine is comparable with the scores of generated negatives; a row scored by a cross-encoder is left
        out. The hardness of the mined negatives is even by its definition and needs no counting.
        """
        if row.verdict == "accepted" and row.cross_score is None:
            self._bins["relative_score"].add("mined", relative_score(row.dense_score, row.positive_score))

    def report(self, **facts: Any) -> GenerationReport:
        """Return what was counted.

        Args:
            facts: fields of `Facts`.

        Raises:
            pydantic.ValidationError: a fact is missing or unknown.
        """
        given = Facts(**facts)
        return GenerationReport(
            **dict(given),
            pairs=dict(self._pairs),
            accepted_per_pair=dict(sorted(self._accepted_per_pair.items())),
            failures={
                kind: FailureKind(count=count, retryable=self._retryable[kind], example=self._failure_examples[kind][1])
                for kind, count in _by_count(self._failures).items()
            },
            negatives=self._verdicts.total(),
            verdicts=_by_count(self._verdicts),
            gates_by_violation=_nested(self._by_violation),
            gates_by_mode=_nested(self._by_mode),
            accepted_by=_nested(self._accepted_by),
            hardness=self._bins["hardness"].histogram(),
            relative_score=self._bins["relative_score"].histogram(),
            diversity=self._diversity.result(),
            tokens=self._tokens(given.seconds),
        )

    def _tokens(self, seconds: float | None) -> Tokens:
        usage, accepted = self._usage, self._verdicts[ACCEPTED]
        total = usage["prompt"] + usage["generated"]
        return Tokens(
            **usage,
            cache_hit_rate=_ratio(usage["cached"], usage["prompt"]),
            generated_per_accepted=_ratio(usage["generated"], accepted),
            total_per_accepted=_ratio(total, accepted),
            generated_per_second=_ratio(usage["generated"], seconds),
            total_per_second=_ratio(total, seconds),
        )


def _properties(negative: Negative, facet: Facet | None) -> list[tuple[str, str]]:
    """Return the properties by which accepted negatives are counted, each with its value."""
    known = {
        "violation": negative.violation,
        "facet": facet,
        "mode": negative.mode,
        "operation": negative.edit.operation if negative.edit else None,
        "origin": negative.origin,
    }
    return [(name, str(value)) for name, value in known.items() if value is not None]


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else f"{part:,}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"  # noqa: RUF001 - a dash where there is nothing


def duration(seconds: float | None) -> str:
    """Return a time in words: seconds, minutes or hours."""
    if seconds is None:
        return "–"  # noqa: RUF001 - a dash where there is nothing
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"


def summary(report: GenerationReport) -> list[list[str]]:
    """Return the report's main numbers as rows of name and value, for a table."""
    tokens, total = report.tokens, sum(report.pairs.values())
    rows = [
        ["pairs", f"{total:,}"],
        ["pairs with accepted negatives", _share(report.pairs["accepted"], total)],
        ["pairs without", _share(report.pairs["rejected"], total)],
        ["pairs that failed", _share(report.pairs["failed"], total)],
        ["negatives accepted", _share(report.accepted, report.negatives)],
        ["negatives rejected", _share(report.rejected, report.negatives)],
        ["requests", f"{tokens.requests:,}"],
        ["prompt tokens", f"{tokens.prompt:,}"],
        ["from the prefix cache", _share(tokens.cached, tokens.prompt)],
        ["generated tokens", f"{tokens.generated:,}"],
        ["generated tokens per accepted negative", _number(tokens.generated_per_accepted)],
        ["all tokens per accepted negative", _number(tokens.total_per_accepted)],
        ["time", duration(report.seconds)],
        ["tokens per second, read and written", _number(tokens.total_per_second)],
    ]
    overall = report.leakage.overall if report.leakage else None
    if overall:
        rows.append(
            ["source leakage (AUC; 0.5 is none)", f"{overall.auc:.3f} ({overall.low:.3f} to {overall.high:.3f})"]
        )
    return rows
