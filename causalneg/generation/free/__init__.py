"""The free form of generation: the LLM writes analyses and passages itself."""


class AnswerError(Exception):
    """An answer that does not have the form that was asked for; it is never repaired."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
