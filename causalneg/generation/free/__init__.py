"""The free form of generation: the LLM writes analyses and passages itself."""

# Kinds of failure that lie in the answer, and not on the way to it.
ANSWER_FAULTS = frozenset({"length", "invalid_json", "invalid_analysis", "invalid_rewrite", "invalid_judgement"})


class AnswerError(Exception):
    """An answer that does not have the form that was asked for; it is never repaired."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
