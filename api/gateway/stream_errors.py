"""What can end an answer before its time, in the words and statuses that our client gets.

That is all that goes wrong at Anthropic, and our own stop. Pure; the SDK is not known here.
"""

from http import HTTPStatus

from core.errors import NakaError

COME_BACK_S = 5
"""What a 503 says when the provider named no time."""


class UpstreamFault(NakaError):
    """Anthropic did not answer as it should. `status` is the HTTP status that our client gets for it.

    `code` is stable; the text says nothing of our account or of Anthropic's words. `sent` is False where Anthropic
    cannot have heard of the request.
    """

    def __init__(
        self, message: str, *, status: int, code: str, retry_after_s: int | None = None, sent: bool = True
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.sent = sent


_WORDS = {
    "upstream_credentials": "the model's provider refuses this service's credentials",
    "upstream_account": "the model's provider refuses this service's account",
    "upstream_model": "the model's provider does not know this model",
    "upstream_busy": "the model's provider is busy",
    "upstream_rate_limited": "the model's provider asks to slow down",
    "upstream_overloaded": "the model's provider is overloaded",
    "upstream_timeout": "the model's provider did not answer in time",
    "upstream_rejected": "the model's provider refuses this request",
    "upstream_unreachable": "the model's provider cannot be reached",
    "upstream_broken": "the model's provider broke off",
    "input_too_large": "the message is larger than the model takes",
    "shutting_down": "this server is being stopped; ask again, another will answer",
}
_BY_EVENT = {
    "overloaded_error": (503, "upstream_overloaded"),
    "rate_limit_error": (503, "upstream_rate_limited"),
    "timeout_error": (504, "upstream_timeout"),
    "authentication_error": (502, "upstream_credentials"),
    "permission_error": (502, "upstream_credentials"),
    "billing_error": (502, "upstream_account"),
    "invalid_request_error": (502, "upstream_rejected"),
    "not_found_error": (502, "upstream_model"),
    "request_too_large": (413, "input_too_large"),
}


def fault(code: str, *, status: int = 502, retry_after_s: int = COME_BACK_S, sent: bool = True) -> UpstreamFault:
    """A fault in the words of its code. Only a 503 says when to come back."""
    wait_s = retry_after_s if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return UpstreamFault(_WORDS[code], status=status, code=code, retry_after_s=wait_s, sent=sent)


def fault_of_event(error_type: str) -> UpstreamFault:
    """What our client is told of an `error` event."""
    status, code = _BY_EVENT.get(error_type, (502, "upstream_broken"))
    return fault(code, status=status)
