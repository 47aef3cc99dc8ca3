"""The errors that more than one package raises: no such thing, not now, not without paying, not while a store is away.

Errors with a meaning of their own live beside the operation that raises them; the HTTP status of each is in
one table, `api/http/problems.py`.
"""


class NakaError(Exception):
    """The root of this project's errors. Its text may be shown to the caller: never a secret, never an internal."""


class NotFound(NakaError):
    """No such thing, or not yours to see: the two answer alike."""


class Conflict(NakaError):
    """What is to be made exists already."""


class Invalid(NakaError):
    """The values do not make sense together, in a way that their types could not say."""


class PaymentRequired(NakaError):
    """The tenant's subscription does not allow it. `code` says why, for machines; never a link to pay by."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(NakaError):
    """Postgres or Redis does not answer. Nothing was admitted; the caller may come back.

    `retry_after_s` is what `Retry-After` will say.
    """

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """Both stores answer, and too many wait for them. Nothing was admitted; the caller may come back."""


class InDoubt(Unavailable):
    """The connection broke while a commit was under way, and its outcome could not be looked up yet."""
