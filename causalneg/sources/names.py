"""The usual names of fields and columns, and how a name is compared with them.

A name is compared in small letters without `_`, `-`, dots and spaces: `Query-ID`, `query_id` and `queryId` are one.
"""

import re
from collections.abc import Sequence

Names = Sequence[str | int]

# What fields may hold, and under which names they are looked for, the first that is there.
CORPUS_NAMES: dict[str, Names] = {
    "id": ("_id", "doc_id", "docno", "passage_id", "pid", "corpus_id", "document_id"),
    "title": ("title", "doc_title", "passage_title"),
    "text": ("text", "contents", "content", "passage", "body", "doc_text", "passage_text"),
    "metadata": ("metadata",),
}
TOPIC_NAMES: dict[str, Names] = {
    "id": ("_id", "query_id", "qid", "topic", "number", "topic_id", "question_id"),
    "text": ("text", "query", "question", "query_text", "contents", "content", "title"),
}
PAIR_NAMES: dict[str, Names] = {
    "query": ("query", "anchor", "question", "query_text", "question_text"),
    "positive": (
        *("positive", "positives", "pos", "positive_passages", "positive_passage", "positive_ctxs"),
        *("positive_document", "positive_doc", "positive_text", "positive_context"),
        *("passage", "context", "answer", "document", "response"),
    ),
    "negative": (
        *("negative", "negatives", "neg", "negs", "negative_passages", "negative_passage", "negative_ctxs"),
        *("negative_document", "negative_documents", "negative_doc", "negative_docs", "negative_text"),
        *("negative_texts", "negative_context", "negative_contexts"),
        *("hard_negative", "hard_negatives", "hard_neg", "hard_negs", "hard_negative_ctxs"),
        *("hard_negative_passage", "hard_negative_passages", "counterfactual", "counterfactuals"),
        *("rejected_response",),
    ),
    "title": ("title",),
    "split": ("split",),
}
QREL_NAMES: dict[str, Names] = {
    "query": ("query-id", "qid", "query", "topic", "topic_id", "question_id"),
    "passage": (
        *("corpus-id", "doc_id", "docno", "passage_id", "pid", "document_id"),
        *("doc", "passage", "document"),
    ),
    "score": ("score", "rel", "relevance", "label", "grade", "judgment", "judgement", "relevance_score"),
    "iteration": ("iteration", "iter", "q0"),
}

# Fields that several numbered columns may hold, as `negative_1` and `neg2`, by the names that numbers may follow.
NUMBERED: dict[str, Names] = {
    "positive": ("positive", "pos", "positive_passage"),
    "negative": PAIR_NAMES["negative"],
}

_BETWEEN = re.compile(r"[\s_.\-]+")
_NUMBER = re.compile(r"(.*?[^0-9])([0-9]{1,6})")

# Splits that other stages know, or that are usual beside them.
_SPLITS = frozenset(("train", "dev", "validation", "valid", "val", "test", "eval"))


def folded(name: str) -> str:
    """Return a name as it is compared with others."""
    return _BETWEEN.sub("", name).lower()


def numbered(name: str) -> tuple[str, int] | None:
    """Return a name that ends in a number as the folded name before it and the number; None for another."""
    found = _NUMBER.fullmatch(folded(name))
    return (found.group(1), int(found.group(2))) if found else None


def usual_split(name: str) -> str:
    """Return the name of a split: a usual one in small letters, whatever its case, and another as it is."""
    small = name.strip().lower()
    return small if small in _SPLITS else name
