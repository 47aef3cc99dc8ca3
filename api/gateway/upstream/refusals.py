"""Interprets errors of Anthropic: whether to retry, and the fault that the client receives. Pure but for logs."""

import math
from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from api.gateway.stream_errors import RETRY_AFTER_S, UpstreamFault, WholeAnswer, fault
from api.gateway.upstream.answer import ConnectionFault
from core.logs import get_logger
from core.resilience.backoff import Backoff

BACKOFF = Backoff(0.5, 8.0, jitter=0.25)
_RETRYABLE = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
_MAX_TYPE_CHARS = 200
_BY_STATUS = {
    401: "upstream_credentials",
    402: "upstream_account",
    403: "upstream_credentials",
    404: "upstream_model",
    408: "upstream_timeout",
    409: "upstream_busy",
    413: "input_too_large",
    429: "upstream_rate_limited",
    503: "upstream_overloaded",
    504: "upstream_timeout",
    529: "upstream_overloaded",
}


_TOO_LONG = "prompt is too long"
"""The documented beginning of a 400's message for a prompt that exceeds the model's window."""

log = get_logger(__name__)


def wait_before_retry(refusal: WholeAnswer, tries: int) -> float | None:
    """Returns seconds to wait before the next try; None when there must be none."""
    should_retry = refusal.headers.get("x-should-retry")
    if should_retry == "false" or (should_retry != "true" and refusal.status not in _RETRYABLE):
        return None
    retry_after = _retry_after_s(refusal.headers)
    if retry_after is None:
        return None if refusal.status == HTTPStatus.TOO_MANY_REQUESTS else BACKOFF.wait_s(tries)
    return max(retry_after, 0.05)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds of the provider's `Retry-After`; None without a valid one."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


class _ErrorType(msgspec.Struct):
    type: str = ""
    message: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorType = msgspec.field(default_factory=_ErrorType)


def fault_of_status(refusal: WholeAnswer) -> UpstreamFault:
    """Returns the fault of an error answer, and logs its details without its text."""
    status = refusal.status
    try:
        said = msgspec.json.decode(refusal.body, type=_ErrorBody).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = _ErrorType()
    error_type = said.type[:_MAX_TYPE_CHARS] or None
    log.warning(
        "upstream_status", status=status, type=error_type, upstream_request_id=refusal.headers.get("request-id")
    )
    if status == HTTPStatus.BAD_REQUEST and (said.message or "").startswith(_TOO_LONG):
        return fault("input_too_large", answer=refusal)
    retry_after = _retry_after_s(refusal.headers)
    wait_s = RETRY_AFTER_S if retry_after is None else max(1, math.ceil(retry_after))
    rejected = "upstream_broken" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "upstream_rejected"
    return fault(_BY_STATUS.get(status, rejected), retry_after_s=wait_s, answer=refusal)


def fault_of_connection(error: ConnectionFault) -> UpstreamFault:
    """Returns the fault of a connection, and logs its reason."""
    log.warning("upstream_unreachable", error=str(error))
    return fault("upstream_unreachable", sent=error.sent)
