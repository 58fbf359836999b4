"""What a request that cannot be answered gets: a status, a sentence, and a name that programs can test for."""

from http import HTTPStatus

from causalneg.serving.schema import ErrorBody


class ApiError(Exception):
    """A request that cannot be answered.

    Args:
        status: of the response; 401 names the scheme by which a key is sent.
        name: for programs.
        message: a sentence for people.
        retry_after: seconds after which to try again, sent as `Retry-After`.
        param: the field of the request that is wrong, where it is one.
    """

    def __init__(
        self, status: HTTPStatus, name: str, message: str, retry_after: int | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.body = ErrorBody(code=int(status), message=message, type=name)
        self.param = param
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        if status == HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = "Bearer"


def too_late() -> ApiError:
    """Return the error of a request whose time is over."""
    return ApiError(HTTPStatus.GATEWAY_TIMEOUT, "deadline", "The time that the answer may take is over.", retry_after=1)


def shutting_down() -> ApiError:
    """Return the error of a request that comes too late for this server."""
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "The server is shutting down.", retry_after=1)
