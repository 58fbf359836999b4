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
    """

    def __init__(self, status: HTTPStatus, name: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.body = ErrorBody(code=int(status), message=message, type=name)
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        if status == HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = "Bearer"
