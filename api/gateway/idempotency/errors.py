"""The refusals of requests with an `Idempotency-Key`. Statuses: `api.http.problems`."""

from core.errors import NakaError


class IdempotencyConflict(NakaError):
    """The stored answer cannot be sent, and the request may not run again. `code` is the reason, for programs."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class IdempotencyMismatch(NakaError):
    """The key was used with another request, or with another credential."""

    error_code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for a different request or credential. Use a new one.")


class IdempotencyFull(NakaError):
    """The tenant's stored answers take all the bytes that they may; the first of them expires in `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "Too many answers are stored for Idempotency-Keys. Try again later, or send no Idempotency-Key."
        )
        self.retry_after_s = retry_after_s


def too_large() -> IdempotencyConflict:
    """The answer is larger than what is stored of one."""
    return IdempotencyConflict(
        "The answer to this Idempotency-Key was too large to store. Use a new key to ask, and pay, again.",
        code="idempotency_answer_too_large",
    )


def restarted() -> IdempotencyConflict:
    """`Last-Event-ID` names an answer that is not there any more."""
    return IdempotencyConflict(
        "The answer that Last-Event-ID names can't be continued. Ask again without Last-Event-ID.",
        code="idempotency_restarted",
    )
