"""Asks, in one call, which candidates of a query answer it, and reads the answer."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ConfigDict

from causalneg.config import RelabelSettings
from causalneg.generation.engines import Completion
from causalneg.generation.free import AnswerError
from causalneg.generation.free.form import (
    WORDS_SCHEMA,
    Answer,
    Words,
    candidates_data,
    chat,
    list_schema,
    object_schema,
    read_answer,
)
from causalneg.generation.free.judge import read_verdicts
from causalneg.generation.prompts.data import as_data
from causalneg.generation.relabel.rows import Shown
from causalneg.records import Answering, Relabelled

_KIND = "invalid_judgement"
_REASONS = "reasons"
_OPTIONS = [a.value for a in Answering]
_FALSE = [a.value for a in Answering if a is not Answering.NO]


class _Reason(Answer):
    candidate: int
    reason: Words


class _Reasons(Answer):
    model_config = ConfigDict(extra="ignore")  # the verdicts, which are read apart

    reasons: list[_Reason]


def relabel_chat(shown: Shown) -> list[dict[str, str]]:
    """Return the messages that ask which candidates answer a query; the first is the same for all queries."""
    count = f"{len(shown.candidates)} candidate" + ("s" if len(shown.candidates) > 1 else "")
    content = {"query": as_data(shown.query.text), "candidates": candidates_data(shown.candidates), "count": count}
    return chat("relabel", {}, content)


def relabel_schema(candidates: int) -> dict[str, Any]:
    """Return the JSON schema of the answer on so many candidates.

    That there is a reason for just those that are not «no» is left to `read_relabelled`: a grammar can't count back.
    """
    numbers = range(1, candidates + 1)
    verdicts: dict[str, Any] = {str(n): {"type": "string", "enum": _OPTIONS} for n in numbers}
    reason = object_schema(candidate={"type": "integer", "enum": list(numbers)}, reason=WORDS_SCHEMA)
    return object_schema(**verdicts, **{_REASONS: list_schema(reason, 0, candidates)})


def read_relabelled(completion: Completion, shown: Shown) -> list[Relabelled]:
    """Read the answer to `relabel_chat`, a row for each candidate in their order; nothing is repaired.

    Raises:
        AnswerError: `invalid_json` where it is no whole JSON; `invalid_judgement` where it does not judge just these
            candidates, or does not give a reason for just those that answer.
    """
    names = [str(n) for n, _ in enumerate(shown.candidates, 1)]
    verdicts = read_verdicts(completion, dict.fromkeys(names, _OPTIONS), [_REASONS])
    reasons = _reasons(completion.text)
    answering = [name for name in names if verdicts[name].said != Answering.NO]
    if list(reasons) != answering:
        given, wanted = (", ".join(of) or "none" for of in (reasons, answering))
        raise AnswerError(_KIND, f"reasons are given for {given}, and {wanted} answer")
    return [
        Relabelled(
            query_id=shown.id,
            passage_id=passage.id,
            answering=Answering(verdicts[name].said),
            score=verdicts[name].log_odds(_FALSE, [Answering.NO.value]),
            reason=reasons.get(name, ""),
        )
        for name, passage in zip(names, shown.candidates, strict=True)
    ]


def _reasons(text: str) -> dict[str, str]:
    """Return the reasons by the candidate's number, in the order in which they are given."""
    listed = [(str(r.candidate), r.reason) for r in read_answer(_Reasons, text, _KIND).reasons]
    if len(dict(listed)) < len(listed):
        raise AnswerError(_KIND, "two reasons are given for one candidate")
    return dict(listed)


def decide(rows: Sequence[Relabelled], settings: RelabelSettings) -> Iterator[Relabelled]:
    """Give judged candidates their verdicts by the settings."""
    for row in rows:
        false = row.answering in settings.false_negatives and row.score >= settings.min_score
        yield row.model_copy(
            update={"verdict": "rejected" if false else "accepted", "rejected_by": row.answering if false else None}
        )
