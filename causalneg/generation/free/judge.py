"""Judge: has the LLM say whether a passage meets a requirement, and reads how sure it is."""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from causalneg.generation.engines import Completion
from causalneg.generation.free.form import Answer, chat, object_schema, read_answer
from causalneg.generation.prompts.data import as_data

MOST_LOG_ODDS = 20.0
# Where no probabilities are known, the answer counts like one given with a probability of 0.88.
TEXT_LOG_ODDS = 2.0


class _Verdict(Answer):
    meets: Literal["yes", "no"]


def judge_chat(passage_text: str, query: str, requirement_content: str) -> list[dict[str, str]]:
    """Return the messages that ask whether a passage meets a requirement.

    The requests for one passage differ in their last lines alone, so that an engine works on the rest once.
    """
    return chat(
        "judge",
        {},
        {"passage": as_data(passage_text), "query": as_data(query), "requirement": as_data(requirement_content)},
    )


def judge_schema() -> dict[str, Any]:
    """Return the JSON schema of a judgement: a single yes or no."""
    return object_schema(meets={"type": "string", "enum": ["yes", "no"]})


def meets_log_odds(completion: Completion) -> float:
    """Return log(P(yes) / P(no)) at the place where the answer was generated, in nats, within ±20.

    All tokens of that place that begin «yes» or «no», with or without quotes, spaces and capitals, count for it. An
    answer that is not among the reported tokens is taken to be as likely as can be: like the least likely one
    reported, and no likelier than what these leave of 1. Without probabilities it is ±2 by the answer's text.

    Raises:
        AnswerError: the text is no judgement.
    """
    answer = read_answer(_Verdict, completion.text, "invalid_judgement").meets
    odds = _reported_odds(completion.probabilities, completion.text, completion.text.rfind(answer))
    if odds is None:
        return TEXT_LOG_ODDS if answer == "yes" else -TEXT_LOG_ODDS
    return max(-MOST_LOG_ODDS, min(MOST_LOG_ODDS, odds))


def _reported_odds(places: Sequence[dict[str, float]], text: str, start: int) -> float | None:
    """Return the log-odds at the place that generated `text[start:]`, or None where it reports no answer.

    Where the tokens don't tell which place that is, it is the one with most probability on the two answers.
    """
    if (found := _place(places, text, start)) is not None:
        place, lead = found
        return _odds(places[place], *_votes(places[place], lead))
    votes = [(place, *_votes(place, "")) for place in places]
    return _odds(*max(votes, key=lambda vote: vote[1] + vote[2])) if votes else None


def _place(places: Sequence[dict[str, float]], text: str, start: int) -> tuple[int, str] | None:
    """Find the place whose token covers `text[start]`, and what of the text stands before it in this token.

    The reported tokens include the generated ones; those are what fits together into the text from its first to its
    last character.
    """
    reached = [{0}]
    for place in places:
        reached.append({end for begin in reached[-1] for end in _ends(place, text, begin)})
    alive = reached[-1] & {len(text)}
    for at in range(len(places) - 1, -1, -1):
        before = {b for b in reached[at] if alive & _ends(places[at], text, b)}
        covering = [b for b in before if b <= start and any(e > start for e in alive & _ends(places[at], text, b))]
        if covering:
            return at, text[covering[0] : start]
        alive = before
    return None


def _ends(place: dict[str, float], text: str, begin: int) -> set[int]:
    """Return where in the text a token of a place may end that begins there; after the text anything may come."""
    if begin == len(text):
        return {begin}
    return {begin + len(token) for token in place if text.startswith(token, begin)}


def _votes(place: dict[str, float], lead: str) -> tuple[float, float]:
    """Return the probabilities of the tokens that begin «yes» and of those that begin «no», after a common lead."""
    sums = {"yes": 0.0, "no": 0.0}
    for token, probability in place.items():
        word = re.sub("[^a-z]", "", token.removeprefix(lead).lower())
        for answer in sums:
            if word and answer.startswith(word):
                sums[answer] += probability
    return sums["yes"], sums["no"]


def _odds(place: dict[str, float], yes: float, no: float) -> float | None:
    """Return the log-odds of two sums of probabilities, one of which may be of tokens that were not reported."""
    if not yes and not no:
        return None
    unreported = min(*place.values(), max(0.0, 1.0 - sum(place.values())))
    yes, no = yes or unreported, no or unreported
    return math.log(yes / no) if yes and no else math.copysign(math.inf, yes - no)
