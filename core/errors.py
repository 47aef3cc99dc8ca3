"""The errors shared by several packages. More specific errors are defined beside the operation that raises them.

`api/http/problems.py` maps each to its HTTP status.
"""


class NakaError(Exception):
    """The base of this project's errors. The message may be shown to the caller, so it holds no secret or internal."""


class NotFound(NakaError):
    """The object does not exist, or the caller may not see it: both answer alike."""


class Conflict(NakaError):
    """The object to be created exists already."""


class Invalid(NakaError):
    """The values are invalid in a way that their types do not express."""


class PaymentRequired(NakaError):
    """The tenant's subscription does not allow the request. `code` is the reason, for programs."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(NakaError):
    """Postgres or Redis does not answer. Nothing was admitted; the caller may retry after `retry_after_s`."""

    def __init__(self, message: str = "The database does not answer. Try again.", *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """The stores answer, but too many requests wait for them. Nothing was admitted; the caller may retry."""

    def __init__(self, message: str = "The database is busy. Try again.", *, retry_after_s: int = 1) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class InDoubt(Unavailable):
    """The connection failed during a commit, and the outcome could not be looked up yet."""
