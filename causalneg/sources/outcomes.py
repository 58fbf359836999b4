"""What can become of a row that is not simply accepted: every kind, with its outcome and its meaning."""

from typing import Literal, NamedTuple


class Outcome(NamedTuple):
    """What becomes of the rows of a kind.

    Attributes:
        becomes: `accepted` rows were noted or changed, `merged` ones are in another row, `rejected` ones are left out.
        strict: whether such a row ends an import with `strict`.
        meaning: for the summary.
    """

    becomes: Literal["accepted", "merged", "rejected"]
    strict: bool
    meaning: str


# Kind of a fault that a reader found: the row is broken.
BROKEN: dict[str, Outcome] = {
    "invalid_row": Outcome("rejected", True, "not valid JSON, or not the columns that are needed"),
    "missing_field": Outcome("rejected", True, "a field is missing"),
    "missing_file": Outcome("rejected", True, "a file that the row names is missing"),
    "wrong_type": Outcome("rejected", True, "a field holds something that is no text"),
    "empty_text": Outcome("rejected", True, "the text is empty"),
    "wrong_score": Outcome("rejected", True, "the score is no whole number"),
    "wrong_metadata": Outcome("rejected", True, "the metadata is no JSON object"),
    "not_utf8": Outcome("rejected", True, "the text is not UTF-8"),
    "line_too_long": Outcome("rejected", True, "a line over 64 MiB"),
}

# Kind of what was found in a text, or in a list, of a row that is accepted for all that.
MENDED: dict[str, Outcome] = {
    "recomposed": Outcome("accepted", False, "text with accents apart from their letters, joined (Unicode NFC)"),
    "lone_surrogate": Outcome("accepted", False, "text with halves of characters, joined or replaced by U+FFFD"),
    "html_entities": Outcome("accepted", False, "text with HTML entities as &amp;, kept as they stand"),
    "empty_member": Outcome("accepted", False, "an empty member of a list of positives or negatives, left out"),
    "metadata_value": Outcome("accepted", False, "a value of metadata that is NaN or infinite, left out"),
}

# Kind of what only the whole data set tells.
SETTLED: dict[str, Outcome] = {
    "repeated": Outcome("merged", False, "the same row once more"),
    "duplicate_id": Outcome("rejected", True, "the id of another row with other text; the first stays"),
    "duplicate_text": Outcome("accepted", False, "the text of another passage, kept under its own id"),
    "merged_text": Outcome("merged", False, "the text of another passage, which takes over its judgements"),
    "cut": Outcome("accepted", False, "text longer than max_characters, cut there"),
    "unknown_query": Outcome("rejected", True, "judgement of a query that is not there"),
    "unknown_passage": Outcome("rejected", True, "judgement of a passage that is not there"),
    "conflicting_score": Outcome("rejected", True, "judged before with another score; the first stays"),
    "without_judgement": Outcome("rejected", False, "query without a judgement"),
    "without_positive": Outcome("rejected", False, "query without a positive, and its judgements"),
    "not_drawn": Outcome("rejected", False, "beyond max_train_queries"),
}

OUTCOMES = BROKEN | MENDED | SETTLED
