"""Judge: has the LLM say which requirements a passage meets and whether it answers the query, with how sure it is."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from causalneg.generation.engines import Completion
from causalneg.generation.free import AnswerError
from causalneg.generation.free.form import chat, object_schema, one_line
from causalneg.generation.prompts.data import as_data
from causalneg.records import Judgement, Requirement

MOST_LOG_ODDS = 20.0
# Where no probabilities are known, the answer counts like one given with a probability of 0.88.
TEXT_LOG_ODDS = 2.0

_KIND = "invalid_judgement"
_ANSWERS = "answers"
_MEETS = ("yes", "no", "moot")
_ANSWERING = ("yes", "partly", "inferred", "no")


@dataclass(frozen=True)
class Verdict:
    """One verdict of an answer.

    Attributes:
        said: the option that was generated.
        probabilities: of the options, where they are known; they need not add up to 1.
    """

    said: str
    probabilities: dict[str, float] | None

    @property
    def likeliest(self) -> str:
        """The option with most probability; the one that was generated where none is known."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else self.said

    def log_odds(self, options: Sequence[str], against: Sequence[str]) -> float:
        """Return the log-odds of some options against others, in nats, within ±20; ±2 by the text alone."""
        if self.probabilities is None:
            return TEXT_LOG_ODDS if self.said in options else -TEXT_LOG_ODDS
        odds = _log_ratio(*(sum(self.probabilities[o] for o in side) for side in (options, against)))
        return max(-MOST_LOG_ODDS, min(MOST_LOG_ODDS, odds))


def judge_chat(passage_text: str, query: str, requirements: Sequence[Requirement]) -> list[dict[str, str]]:
    """Return the messages that ask which requirements a passage meets, and whether it answers the query."""
    listed = "\n".join(f"{r.id}. {one_line(r.content)}" for r in requirements)
    return chat("judge", {}, {"passage": as_data(passage_text), "query": as_data(query), "requirements": listed})


def judge_schema(requirements: Sequence[Requirement]) -> dict[str, Any]:
    """Return the JSON schema of a judgement: a verdict on each requirement, and one on the query."""
    met: dict[str, Any] = {str(r.id): {"type": "string", "enum": list(_MEETS)} for r in requirements}
    return object_schema(**met, **{_ANSWERS: {"type": "string", "enum": list(_ANSWERING)}})


def read_judgement(completion: Completion, requirements: Sequence[Requirement]) -> tuple[list[Judgement], float]:
    """Return the judgement of each requirement, and the log-odds that the passage answers the query, if only in part.

    Raises:
        AnswerError: `invalid_json` where the answer is no whole JSON; `invalid_judgement` where it is no judgement of
            these requirements.
    """
    options = {str(r.id): _MEETS for r in requirements} | {_ANSWERS: _ANSWERING}
    verdicts = read_verdicts(completion, options)
    judgements = []
    for requirement in requirements:
        verdict = verdicts[str(requirement.id)]
        moot = verdict.likeliest == "moot"
        score = verdict.log_odds(["yes"], ["no", "moot"] if moot else ["no"])
        judgements.append(Judgement(requirement_id=requirement.id, score=score, moot=moot))
    return judgements, verdicts[_ANSWERS].log_odds(_ANSWERING[:-1], _ANSWERING[-1:])


def read_verdicts(
    completion: Completion, options: Mapping[str, Sequence[str]], further: Sequence[str] = ()
) -> dict[str, Verdict]:
    """Read an answer that gives one of several options under each of some names, with their probabilities.

    Args:
        completion: the answer.
        options: by name.
        further: members that come after the verdicts and are none.

    All tokens at the place of a verdict that begin an option, with or without quotes, spaces and capitals, count for
    it. An option that is not among the reported tokens is taken to be as likely as can be: like the least likely token
    reported, and no likelier than what these leave of 1.

    Raises:
        AnswerError: `invalid_json` where the answer is no whole JSON; `invalid_judgement` where it has other names or
            options.
    """
    said, wanted = _members(completion.text), [*options, *further]
    if list(said) != wanted:
        raise AnswerError(_KIND, f"the verdicts are on {', '.join(said) or 'nothing'}, not on {', '.join(wanted)}")
    said = {name: said[name] for name in options}
    for name, verdict in said.items():
        if not isinstance(verdict, str) or verdict not in options[name]:
            raise AnswerError(_KIND, f"{name}: {verdict!r} is none of {', '.join(options[name])}")
    starts = _starts(completion.text, said)
    places = completion.probabilities
    found = [
        _probabilities(places, completion.text, start, options[name]) for name, start in zip(said, starts, strict=True)
    ]
    if None in found:  # the tokens don't make up the text: the places that bear verdicts, if there are as many
        found = list(_in_order(places, [options[name] for name in said]))
    return {name: Verdict(said[name], p) for name, p in zip(said, found, strict=True)}


def _members(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text, object_pairs_hook=list)
    except (json.JSONDecodeError, RecursionError) as error:
        raise AnswerError("invalid_json", f"the answer is no whole JSON: {text[:200]!r}") from error
    pairs = answer if isinstance(answer, list) and all(isinstance(p, tuple) for p in answer) and answer != [] else None
    if pairs is None or len(dict(pairs)) < len(pairs):
        raise AnswerError(_KIND, f"the answer is no object of verdicts: {text[:200]!r}")
    return dict(pairs)


def _starts(text: str, said: dict[str, str]) -> list[int]:
    """Return where in the text each verdict begins; -1 where it is written with escapes."""
    starts, at = [], 0
    for name, verdict in said.items():
        found = re.compile(rf'"{re.escape(name)}"\s*:\s*"(?={re.escape(verdict)}")').search(text, at)
        starts.append(found.end() if found else -1)
        at = found.end() if found else at
    return starts


def _probabilities(
    places: Sequence[dict[str, float]], text: str, start: int, options: Sequence[str]
) -> dict[str, float] | None:
    """Return the options' probabilities at the place that generated `text[start:]`; None where it isn't known."""
    if start < 0 or (found := _place(places, text, start)) is None:
        return None
    place, lead = found
    return _votes(places[place], lead, options)


def _in_order(
    places: Sequence[dict[str, float]], options: Sequence[Sequence[str]]
) -> Iterator[dict[str, float] | None]:
    """Give each verdict the place at its turn among those with more probability on options than on anything else."""
    for turn, own in enumerate(options):
        bearing = [p for p in places if sum(_reported(p, "", own).values()) > 0.5]
        yield _votes(bearing[turn], "", own) if len(bearing) == len(options) else None


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


def _reported(place: dict[str, float], lead: str, options: Sequence[str]) -> dict[str, float]:
    """Return the probability of the reported tokens that begin each option, after a common lead."""
    sums = dict.fromkeys(options, 0.0)
    for token, probability in place.items():
        word = re.sub("[^a-z]", "", token.removeprefix(lead).lower())
        for option in options:
            if word and option.startswith(word):
                sums[option] += probability
    return sums


def _votes(place: dict[str, float], lead: str, options: Sequence[str]) -> dict[str, float] | None:
    """Return the probability of each option, for those not reported as much as there can be; None where none is."""
    sums = _reported(place, lead, options)
    if not any(sums.values()):
        return None
    unreported = min(*place.values(), max(0.0, 1.0 - sum(place.values())))
    share = unreported / max(1, list(sums.values()).count(0.0))
    return {option: probability or share for option, probability in sums.items()}


def _log_ratio(one: float, other: float) -> float:
    if one and other:
        return math.log(one / other)
    return math.copysign(math.inf, one - other) if one != other else 0.0
