"""What a call to Razorpay can fail with, and which failure an answer is. Pure.

The rule: the HTTP status decides first, then Razorpay's `error.code`; a description is for people. A failure says
whether the call may have had its effect. `RazorpayRefused`, `RazorpayThrottled` and `RazorpayUnavailable` say that it
had none; `RazorpayInDoubt` says that only a look can tell, and is never followed by a second try without one.
Nothing here keeps a request, a header or a page of HTML, so that no failure can carry a secret into a log.
Source: facts/razorpay.md, sections 1.1, 1.2 and 7.
"""

import json
from typing import Any

MAX_TEXT = 500

_OK, _FIRST_ERROR, _FIRST_SERVER_ERROR = 200, 400, 500
_REDIRECT = 300
_TIMED_OUT, _CONFLICT, _THROTTLED = 408, 409, 429
# A 4xx that does not say that nothing happened: 409 on a refund is "the first one is still in progress".
_UNDECIDED = frozenset({_TIMED_OUT, _CONFLICT})
_NOT_OUR_FAULT = frozenset({"SERVER_ERROR", "GATEWAY_ERROR"})


class RazorpayError(Exception):
    """A call that brought no usable answer."""


class RazorpayRefused(RazorpayError):
    """A definite no: nothing happened, and the same call again gets the same answer."""

    def __init__(self, status: int, code: str, description: str, field: str | None) -> None:
        super().__init__(f"{status} {code}: {description}")
        self.status = status
        self.code = code
        self.description = description
        self.field = field


class RazorpayThrottled(RazorpayError):
    """Too many calls (429): nothing happened. `retry_after_s` only if Razorpay said so, which it does not promise."""

    def __init__(self, retry_after_s: float | None) -> None:
        super().__init__("429: too many calls")
        self.retry_after_s = retry_after_s


class RazorpayInDoubt(RazorpayError):
    """A write that may or may not have had its effect: look before anything is done again."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class RazorpayUnavailable(RazorpayError):
    """A read that failed after its retries, or a write that was certainly never sent."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class RazorpayBusy(RazorpayUnavailable):
    """All our own threads were taken for too long; nothing was sent."""


def unanswered(reason: str, *, is_read: bool, status: int | None = None) -> RazorpayError:
    """The failure of a call whose answer is not known."""
    return RazorpayUnavailable(reason, status) if is_read else RazorpayInDoubt(reason, status)


def fault_of(status: int, body: bytes, retry_after: str | None, *, is_read: bool) -> RazorpayError | None:
    """Which failure an answer is; None for a good one, which is a 2xx of JSON."""
    answer = _read(body)
    if _OK <= status < _REDIRECT:
        return None if answer is not None else unanswered(f"{status} without JSON", is_read=is_read, status=status)
    if status == _THROTTLED:
        return RazorpayThrottled(_seconds(retry_after))
    code, description, field = _explained(answer)
    definite = _FIRST_ERROR <= status < _FIRST_SERVER_ERROR and status not in _UNDECIDED and code not in _NOT_OUR_FAULT
    if definite:
        return RazorpayRefused(status, code, description, field)
    return unanswered(f"{status} {code}: {description}".rstrip(": "), is_read=is_read, status=status)


def _read(body: bytes) -> dict[str, Any] | list[Any] | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict | list) else None


def _explained(answer: object) -> tuple[str, str, str | None]:
    """Code, description and field; the gateway before Razorpay's API says only `{"message": ...}`."""
    said = answer if isinstance(answer, dict) else {}
    error = said.get("error")
    if not isinstance(error, dict):
        return "", _text(said.get("message")), None
    field = _text(error.get("field"))
    return _text(error.get("code")).upper(), _text(error.get("description")), None if field in {"", "NA"} else field


def _text(value: object) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdecimal() else None
