"""The errors that can end an answer early, with their HTTP statuses and messages: Anthropic's, and our own. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from core.errors import NakaError

RETRY_AFTER_S = 5
"""Seconds in `Retry-After` of a 503 when the provider gave none."""


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer of the provider that was read whole. `headers` has names in lower case; `body` is cut at 64 kB."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class UpstreamFault(NakaError):
    """Anthropic failed. `status` is the HTTP status that our client receives, `code` a stable identifier.

    The message reveals neither our account nor Anthropic's text. `sent` is False when Anthropic cannot have received
    the request. `answer`: what the provider answered, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        retry_after_s: int | None = None,
        sent: bool = True,
        answer: WholeAnswer | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.sent = sent
        self.answer = answer


_BUSY = "Claude is busy. Try again."
_FAULTS = {
    "upstream_credentials": (502, "Anthropic rejected this service's credentials."),
    "upstream_account": (502, "Anthropic rejected this service's account."),
    "upstream_model": (502, "Anthropic doesn't offer this model."),
    "upstream_busy": (503, _BUSY),
    "upstream_rate_limited": (503, _BUSY),
    "upstream_overloaded": (503, _BUSY),
    "upstream_timeout": (504, "Claude didn't answer in time. Try again."),
    "upstream_rejected": (502, "Anthropic rejected this request."),
    "upstream_unreachable": (502, "Claude can't be reached. Try again."),
    "upstream_broken": (502, "Claude's answer broke off. Try again."),
    "input_too_large": (413, "The message is too long for this model."),
    "shutting_down": (503, "This server is restarting. Try again."),
}
"""The status and the message of each code."""
_BY_EVENT = {
    "overloaded_error": "upstream_overloaded",
    "rate_limit_error": "upstream_rate_limited",
    "timeout_error": "upstream_timeout",
    "authentication_error": "upstream_credentials",
    "permission_error": "upstream_credentials",
    "billing_error": "upstream_account",
    "invalid_request_error": "upstream_rejected",
    "not_found_error": "upstream_model",
    "request_too_large": "input_too_large",
}


def fault(
    code: str, *, retry_after_s: int = RETRY_AFTER_S, sent: bool = True, answer: WholeAnswer | None = None
) -> UpstreamFault:
    """Returns the fault of a code. Only a 503 has a `Retry-After`."""
    status, message = _FAULTS[code]
    wait_s = retry_after_s if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return UpstreamFault(message, status=status, code=code, retry_after_s=wait_s, sent=sent, answer=answer)


def fault_of_event(error_type: str) -> UpstreamFault:
    """Returns the fault of an `error` event."""
    return fault(_BY_EVENT.get(error_type, "upstream_broken"))
