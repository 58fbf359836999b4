"""Judges which requirements a negative meets: asked yes or no, by likelihood, or by the edit itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from causalneg.generation.ask import Asker, settled
from causalneg.generation.engines import EngineError
from causalneg.generation.free.judge import MOST_LOG_ODDS, judge_chat, judge_schema, read_judgement
from causalneg.generation.gates.requirements import judge_edit
from causalneg.generation.prompts import fill, prompt, query_segments
from causalneg.generation.rows import Method, Pair
from causalneg.records import Analysis, Judgement, Negative, Operation

_TOP = 20  # tokens whose probabilities are looked at


@dataclass(frozen=True)
class Judged:
    """What the judge says of one negative.

    Attributes:
        requirements: those that were judged.
        answers: log-odds that the negative answers the query; None where nobody was asked.
    """

    requirements: list[Judgement]
    answers: float | None = None


async def ask_judge(passage: str, query: str, analysis: Analysis, asker: Asker) -> Judged:
    """Ask which critical requirements a passage meets, and whether it answers the query, in one request."""
    critical = [r for r in analysis.requirements if r.critical]
    judgements, answers = await asker.ask(
        lambda _: judge_chat(passage, query, critical),
        lambda done, _: read_judgement(done, critical),
        f"judge {passage}",
        judge_schema(critical),
        asker.judge_tokens,
        top_probabilities=_TOP,
        judging=True,
    )
    return Judged(judgements, answers)


async def evidence_likelihoods(passage: str, analysis: Analysis, asker: Asker) -> list[float]:
    """Return how likely the evidence of each requirement is after a passage, all in one request."""
    before, after = prompt("requirement_likelihood").split("\n", 1)
    lines = [fill(after, evidence=r.evidence) + "\n" for r in analysis.requirements]
    return (await asker.likelihood([fill(before, passage=passage) + "\n", *lines]))[1:]


def by_margin(negative: Sequence[float], positive: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return how much more likely each requirement is under the negative than half way from positive to another."""
    return [n - (p + o) / 2 for n, p, o in zip(negative, positive, other, strict=True)]


async def judge_requirements(
    pair: Pair, analysis: Analysis, negatives: Sequence[Negative], method: Method, asker: Asker
) -> list[Judged | EngineError]:
    """Judge every requirement of the analysis on every negative; an error stands for one that was not judged.

    Asked of the LLM where it can be asked. Otherwise an edit is judged by what it changed, and a rewritten
    passage by how likely it makes each requirement's evidence, between the positive and a mined negative.

    Raises:
        EngineError: what all of them are compared with was not to be had.
    """
    if method == "yes_no":
        return await settled(ask_judge(n.full_text, pair.query.text, analysis, asker) for n in negatives)
    if all(n.edit for n in negatives):
        return [Judged(judge_edit(n, analysis, pair)) for n in negatives]
    other = pair.references[-1].full_text if pair.references else ""
    texts = [pair.positive.full_text, other, *(n.full_text for n in negatives)]
    positive, apart, *rest = await settled(evidence_likelihoods(t, analysis, asker) for t in texts)
    if isinstance(positive, EngineError):
        raise positive
    if isinstance(apart, EngineError):
        raise apart
    return [
        own
        if isinstance(own, EngineError)
        else Judged(
            [
                Judgement(requirement_id=r.id, score=score)
                for r, score in zip(analysis.requirements, by_margin(own, positive, apart), strict=True)
            ]
        )
        for own in rest
    ]


def judgement_scores(judged: Judged, analysis: Analysis, broken: int, certain: bool = True) -> dict[str, float]:
    """Return the score of the broken requirement, the lowest of the other critical ones, and whether it answers.

    Only what was judged has a score. A requirement that is moot, as what it speaks of went with the broken one, does
    not count against a negative.

    Args:
        judged: what was said of one negative.
        analysis: its requirements.
        broken: the requirement that the negative was written to break.
        certain: whether it comes from an answer or from the edit itself. By likelihood it is less certain: under names
            of their own, so that other thresholds decide on them.
    """
    kind = "met" if certain else "likely"
    critical = {r.id for r in analysis.requirements if r.critical}
    target = [j.score for j in judged.requirements if j.requirement_id == broken]
    others = [j for j in judged.requirements if j.requirement_id in critical and j.requirement_id != broken]
    scores = {f"target_{kind}": target[0]} if target else {}
    if others:
        scores[f"others_{kind}"] = min((j.score for j in others if not j.moot), default=MOST_LOG_ODDS)
    return scores if judged.answers is None else scores | {"answers": judged.answers}


def llm_scores(
    negative: Negative,
    analysis: Analysis,
    judged: Judged,
    query: Mapping[str, float],
    method: Method,
) -> dict[str, float]:
    """Return every score that needs the LLM.

    Args:
        negative: the negative.
        analysis: its analysis.
        judged: what was said of the negative.
        query: its `query_scores`; empty where the engine tells no likelihoods.
        method: how it was judged.
    """
    certain = method == "yes_no" or negative.edit is not None
    scores = judgement_scores(judged, analysis, negative.requirement_id, certain) | dict(query)
    if query and negative.edit and negative.edit.operation is Operation.REPLACE:
        scores["replaced_margin"] = query["likelihood_margin"]
    return scores


async def query_scores(pair: Pair, negatives: Sequence[Negative], asker: Asker) -> list[dict[str, float] | EngineError]:
    """Return how likely each negative makes the query, and how fluent it is, against the positive, in nats a token.

    Raises:
        EngineError: the positive's own likelihood was not to be had.
    """
    texts = [pair.positive.full_text, *(n.full_text for n in negatives)]
    positive, *rest = await settled(asker.likelihood(query_segments(t, pair.query.text)) for t in texts)
    if isinstance(positive, EngineError):
        raise positive
    passage, query = positive
    return [
        own
        if isinstance(own, EngineError)
        else {"query_logprob": own[1], "likelihood_margin": query - own[1], "fluency": own[0] - passage}
        for own in rest
    ]
