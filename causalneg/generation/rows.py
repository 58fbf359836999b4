"""The rows that pass between the steps of generation."""

from typing import Literal

from causalneg.records import Analysis, Failure, Negative, Passage, Query, Record

Mode = Literal["edit", "rewrite"]
Method = Literal["yes_no", "likelihood"]


class Procedure(Record):
    """How the negatives of some drafts are made and scored: the same for all of them.

    Attributes:
        judge: how requirements are judged.
        likelihoods: whether the engine tells how likely a text is, so that negatives are scored by that, too.
    """

    mode: Mode
    judge: Method
    likelihoods: bool


class Pair(Record):
    """A query with a positive and what generation needs to know about them.

    Attributes:
        other_positives: further positives of the query; no negative may come near them.
        references: mined negatives of the query, the best first; style, alternatives and grafts come from them.
        mined_scores: cosines of the query and its mined negatives.
    """

    id: str
    query: Query
    positive: Passage
    other_positives: list[Passage]
    references: list[Passage]
    mined_scores: list[float]


class Usage(Record):
    """Requests and tokens that were spent."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: value + getattr(other, name) for name, value in self})


class Step(Record):
    """What one step made of one pair: an analysis, candidate negatives, scored negatives, or a failure.

    Attributes:
        lost: failures of single negatives where the pair has others.
        again: parts that are to be done anew, by the names that failures have for them; the rest is kept.
    """

    pair_id: str
    analysis: Analysis | None = None
    negatives: list[Negative] = []
    failure: Failure | None = None
    lost: list[Failure] = []
    again: list[str] = []
    usage: Usage = Usage()
