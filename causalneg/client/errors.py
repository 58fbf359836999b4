"""What can go wrong between client and server."""


class CausalNegError(Exception):
    """The server could not be asked, refused, or gave no usable answer.

    Attributes:
        message: a sentence for people.
        code: HTTP status of the answer; None where there was none.
        type: a name that programs can test for; the server's where it gave one.
    """

    def __init__(self, message: str, code: int | None = None, type: str = "error") -> None:  # noqa: A002 - as sent
        super().__init__(message)
        self.message = message
        self.code = code
        self.type = type


class InvalidRequestError(CausalNegError):
    """The request can't be answered as it is; found by the server, or before anything was sent."""


class TooLargeError(InvalidRequestError):
    """The request is larger than the server takes."""


class UnauthorizedError(CausalNegError):
    """The API key is missing, wrong, or may not do this."""


class NotFoundError(CausalNegError):
    """There is no such thing on the server."""


class OverloadedError(CausalNegError):
    """The server has too much to do, and went on having it."""


class NotReadyError(CausalNegError):
    """The server can't answer yet, or can't any more."""


class TimedOutError(CausalNegError):
    """There was no answer in time."""


class UnreachableError(CausalNegError):
    """The server can't be connected to, or the connection broke."""


class BadAnswerError(CausalNegError):
    """The answer has not the shape that was agreed on; client and server may be of different versions."""


_BY_STATUS: dict[int, type[CausalNegError]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    403: UnauthorizedError,
    404: NotFoundError,
    408: TimedOutError,
    413: TooLargeError,
    422: InvalidRequestError,
    429: OverloadedError,
    503: NotReadyError,
    504: TimedOutError,
}


def error_of(status: int) -> type[CausalNegError]:
    """Return the error that an HTTP status stands for."""
    return _BY_STATUS.get(status, CausalNegError)
