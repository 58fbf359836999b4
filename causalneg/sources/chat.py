"""The chat form of a pair, as ms-swift trains on it with InfoNCE: messages, positive_messages, negative_messages.

Source: ms-swift, docs/source_en/BestPractices/Embedding.md.
"""

from typing import Any

from causalneg.sources.fields import Row
from causalneg.sources.items import BrokenError

MARK = "positive_messages"
COLUMNS = ("messages", MARK, "negative_messages", "split")


def _content(content: Any) -> str:  # noqa: ANN401 - any JSON
    """Return a message's text, which may come in parts."""
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    if isinstance(content, str):
        return content
    raise BrokenError("wrong_type", "a message's content is no text; give each message a text there")


def _text(messages: Any) -> str:  # noqa: ANN401 - any JSON
    """Return what the encoder would read: a system message, then those of the user, joined by a space.

    Nothing was said where there are no messages.
    """
    if messages is None or messages == []:
        return ""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise BrokenError("wrong_type", "messages are needed as a list of objects with role and content")
    texts = [_content(m.get("content")) for role in ("system", "user") for m in messages if m.get("role") == role]
    if not texts:
        raise BrokenError("missing_field", "no message has the role user")
    return " ".join(texts)


def _each(conversations: Any) -> list[str]:  # noqa: ANN401 - any JSON
    """Return the text of each conversation; a single one need not stand in a list."""
    if isinstance(conversations, list) and conversations and isinstance(conversations[0], dict):
        conversations = [conversations]
    if not isinstance(conversations, list):
        raise BrokenError("wrong_type", f"{MARK} and negative_messages are lists of lists of messages")
    return [_text(messages) for messages in conversations]


def as_pair(row: Row) -> dict[str, Any]:
    """Return a chat row as a row of a query, its positives and its negatives.

    Raises:
        BrokenError: the row has another form.
    """
    return {
        "query": _text(row.get("messages")),
        "positive": _each(row.get(MARK)),
        "negative": _each(row.get("negative_messages") or []),
        "split": row.get("split"),
    }
