"""Judges which requirements a negative meets: asked yes or no, by likelihood, or by the edit itself."""

from collections.abc import Mapping, Sequence

from causalneg.generation.ask import Asker, answered, settled
from causalneg.generation.engines import EngineError
from causalneg.generation.free.judge import judge_chat, judge_schema, meets_log_odds
from causalneg.generation.gates.requirements import judge_edit
from causalneg.generation.prompts import fill, prompt, query_segments
from causalneg.generation.rows import Method, Pair
from causalneg.records import Analysis, Judgement, Negative, Operation

_TOP = 20  # tokens whose probabilities are looked at


async def ask_yes_no(passage: str, query: str, analysis: Analysis, asker: Asker) -> list[Judgement]:
    """Ask for each requirement whether a passage meets it; the score is the log-odds of «yes»."""

    async def one(content: str) -> float:
        return await asker.ask(
            lambda _: judge_chat(passage, query, content),
            lambda done, _: meets_log_odds(done),
            f"judge {content} {passage}",
            judge_schema(),
            asker.judge_tokens,
            top_probabilities=_TOP,
        )

    scores = await answered(one(r.content) for r in analysis.requirements)
    return [Judgement(requirement_id=r.id, score=score) for r, score in zip(analysis.requirements, scores, strict=True)]


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
) -> list[list[Judgement] | EngineError]:
    """Judge every requirement of the analysis on every negative; an error stands for one that was not judged.

    Asked yes or no where the model can be asked. Otherwise an edit is judged by what it changed, and a rewritten
    passage by how likely it makes each requirement's evidence, between the positive and a mined negative.

    Raises:
        EngineError: what all of them are compared with was not to be had.
    """
    if method == "yes_no":
        return await settled(ask_yes_no(n.full_text, pair.query.text, analysis, asker) for n in negatives)
    if all(n.edit for n in negatives):
        return [judge_edit(n, analysis, pair) for n in negatives]
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
        else [
            Judgement(requirement_id=r.id, score=score)
            for r, score in zip(analysis.requirements, by_margin(own, positive, apart), strict=True)
        ]
        for own in rest
    ]


def judgement_scores(
    judgements: Sequence[Judgement], analysis: Analysis, broken: int, certain: bool = True
) -> dict[str, float]:
    """Return the score of the broken requirement and the lowest of the other critical ones, where they were judged.

    Args:
        judgements: of one negative.
        analysis: its requirements.
        broken: the requirement that the negative was written to break.
        certain: whether they come from an answer or from the edit itself. By likelihood they are less certain: under
            names of their own, so that other thresholds decide on them.
    """
    kind = "met" if certain else "likely"
    critical = {r.id for r in analysis.requirements if r.critical}
    target = [j.score for j in judgements if j.requirement_id == broken]
    others = [j.score for j in judgements if j.requirement_id in critical and j.requirement_id != broken]
    return ({f"target_{kind}": target[0]} if target else {}) | ({f"others_{kind}": min(others)} if others else {})


def llm_scores(
    negative: Negative,
    analysis: Analysis,
    judgements: Sequence[Judgement],
    query: Mapping[str, float],
    method: Method,
) -> dict[str, float]:
    """Return every score that needs the LLM.

    Args:
        negative: the negative.
        analysis: its analysis.
        judgements: of the negative.
        query: its `query_scores`; empty where the engine tells no likelihoods.
        method: how it was judged.
    """
    certain = method == "yes_no" or negative.edit is not None
    scores = judgement_scores(judgements, analysis, negative.requirement_id, certain) | dict(query)
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
