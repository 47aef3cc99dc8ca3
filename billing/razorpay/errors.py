"""Failures of a call to Razorpay, and the classification of its answers. Pure.

The HTTP status decides first, then Razorpay's `error.code`. `RazorpayRefused`, `RazorpayThrottled` and
`RazorpayUnavailable` mean that the call had no effect. After `RazorpayInDoubt` only a fetch can tell. No failure keeps
a request, a header or HTML, so none can leak a secret into a log. Source: Razorpay's API reference (errors,
idempotency), and the SDK's code.
"""

import json
from typing import Any

MAX_TEXT = 500

_OK, _FIRST_ERROR, _FIRST_SERVER_ERROR = 200, 400, 500
_REDIRECT = 300
_TIMED_OUT, _CONFLICT, _THROTTLED = 408, 409, 429
# A 4xx that leaves the effect open: 409 on a refund means that the first one is still in progress.
_UNDECIDED = frozenset({_TIMED_OUT, _CONFLICT})
_NOT_OUR_FAULT = frozenset({"SERVER_ERROR", "GATEWAY_ERROR"})


class RazorpayError(Exception):
    """A call without a usable answer."""


class RazorpayRefused(RazorpayError):
    """Refused for certain: no effect, and the same call gets the same answer again."""

    def __init__(self, status: int, code: str, description: str, field: str | None) -> None:
        super().__init__(f"{status} {code}: {description}")
        self.status = status
        self.code = code
        self.description = description
        self.field = field

    @property
    def is_unknown_id(self) -> bool:
        """Razorpay has no such id, or not in that state (400, 404); 401 and 403 concern our key."""
        return self.status in {400, 404}

    @property
    def is_invalid_request(self) -> bool:
        """This very request is refused (400, 422); another 4xx concerns our key or a route."""
        return self.status in {400, 422}


class RazorpayThrottled(RazorpayError):
    """Too many calls (429): no effect. `retry_after_s` is set only if Razorpay sends it, which it doesn't promise."""

    def __init__(self, retry_after_s: float | None) -> None:
        super().__init__("429: too many calls")
        self.retry_after_s = retry_after_s


class _Unanswered(RazorpayError):
    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class RazorpayInDoubt(_Unanswered):
    """A write that may or may not have had its effect. Fetch before repeating it."""


class RazorpayUnavailable(_Unanswered):
    """A read that failed after its retries, or a write that was never sent."""


class RazorpayBusy(RazorpayUnavailable):
    """None of our threads became free in time; nothing was sent."""


def unanswered(reason: str, *, is_read: bool, status: int | None = None) -> RazorpayError:
    """The failure of a call without an answer."""
    return RazorpayUnavailable(reason, status) if is_read else RazorpayInDoubt(reason, status)


def fault_of(status: int, body: bytes, retry_after: str | None, *, is_read: bool) -> RazorpayError | None:
    """The failure that an answer means; None for a good one, a 2xx with JSON."""
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
    """Code, description and field. The gateway in front of Razorpay's API sends only `{"message": ...}`."""
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
