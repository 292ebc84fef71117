"""One error family. A verb raises it in domain words; each service renders it in its upstream format (`Service.render_error`).

    Error
    ├── BadRequest 400   Unauthorized 401   Forbidden 403   NotFound 404   NotAcceptable 406   Conflict 409   Gone 410
    ├── PreconditionFailed 412   TooLarge 413   UnsupportedMedia 415   TooManyRequests 429   Unavailable 503
    └── OverQuota (413; services that answer 403 or 409 pass `status`)

`message` is for the caller. What only the operator may see goes to the log by `cause` (exception chaining), never into `message`.
`kind` is the upstream exception's name where clients match on it (`NetworkInUse`).
"""

from typing import ClassVar


class Error(Exception):
    """A refusal with an HTTP status. `kind`: upstream's name of it, where clients rely on one."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = ""

    def __init__(self, message: str, *, kind: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.name = kind or self.kind or type(self).__name__
        self.code = status or self.status


class BadRequest(Error):
    status = 400


class Unauthorized(Error):
    status = 401

    def __init__(self, message: str = "The request you have made requires authentication.") -> None:
        super().__init__(message)


class Forbidden(Error):
    status = 403


class NotFound(Error):
    status = 404


class MethodNotAllowed(Error):
    status = 405


class NotAcceptable(Error):
    status = 406


class Conflict(Error):
    status = 409


class Gone(Error):
    status = 410


class PreconditionFailed(Error):
    status = 412


class TooLarge(Error):
    status = 413


class OverQuota(Error):
    status = 413
    kind = "OverQuota"


class UnsupportedMedia(Error):
    status = 415


class TooManyRequests(Error):
    """`retry_after` seconds, also told in the header of that name."""

    status = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(Error):
    status = 503
