"""The rows that pass between the steps of generation."""

from causalneg.records import Analysis, Failure, Negative, Passage, Query, Record


class Pair(Record):
    """A query with a positive and what generation needs to know about them.

    Attributes:
        other_positives: further positives of the query; no negative may come near them.
        references: mined negatives of the query, the best first; alternatives come from them.
        mined_scores: cosines of the query and its mined negatives.
    """

    id: str
    query: Query
    positive: Passage
    other_positives: list[Passage]
    references: list[Passage]
    mined_scores: list[float]


class Draft(Record):
    """What the LLM made of a pair; a failure where it made nothing."""

    pair: Pair
    analysis: Analysis | None = None
    negatives: list[Negative] = []
    failure: Failure | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
