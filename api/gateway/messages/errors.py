"""Errors of `/v1/messages` and `/v1/models` in Anthropic's form, which its SDKs and Claude Code read. Pure.

`x-should-retry` overrides the clients' own rules: they would ask again for minutes after a wrong key or a used-up
budget. What Anthropic said about the request itself goes on unmodified, because clients switch features off by its
words; what it said about the operator's account does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from api.gateway.idempotency.errors import IdempotencyConflict, IdempotencyMismatch
from api.gateway.messages.body import InvalidRequest
from api.gateway.messages.encoding import BadEncoding
from api.gateway.stream_errors import UpstreamFault, WholeAnswer
from core.errors import NakaError, Overloaded, PaymentRequired
from core.tenancy.principal import Forbidden, Unauthenticated
from metering.admission.admission import QuotaExceeded
from metering.pricing.price import UnknownModel
from metering.quota.limits import BillMeter, Meter
from metering.quota.windows import WindowKind

_PATHS = ("/v1/messages", "/v1/models", "/v1/files", "/v1/skills")
OVERLOADED = 529
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}
"""The type of a status; any other is an `api_error`."""
_AS_400 = frozenset({415, 422})
"""Anthropic's API knows no other status for a request that is malformed."""
_PASSED_ON = frozenset({400, 404, 413, 422})
"""Anthropic's answers about the request itself."""
_OF_OPERATOR = (
    *("api usage limit", "spend limit", "credit balance", "has been disabled"),
    *("organization", "workspace", "console.anthropic", "billing"),
)
"""Words in a message about the operator's account (a limit that it set, no money left), which no tenant can mend."""
_BUSY_FAULTS = frozenset({"upstream_busy", "upstream_rate_limited", "upstream_overloaded"})
_HOPELESS_FAULTS = frozenset({"upstream_credentials", "upstream_account", "upstream_rejected"})
_MONEY = frozenset({Meter.SPEND, BillMeter.CHARGE})
_USED_UP = frozenset({"limit_reached", "budget_exhausted"})
_JSON = {"content-type": "application/json"}
_PLAIN_CODES = frozenset({"forbidden"})


@dataclass(frozen=True, slots=True)
class AnthropicError:
    """An answer: its status, its body as it is sent, and its headers."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class _Error(msgspec.Struct):
    type: str
    message: str


class _Said(msgspec.Struct):
    type: Literal["error"]
    error: _Error


@dataclass(slots=True)
class _Form:
    status: int
    type: str | None = None
    retry: bool | None = None
    """The value of `x-should-retry`; None leaves it to the client's rules."""
    error_code: str | None = None


def is_anthropic_path(path: str) -> bool:
    """Whether errors of this path have Anthropic's form."""
    return path.startswith(_PATHS) and any(path == one or path.startswith(f"{one}/") for one in _PATHS)


def anthropic_error(
    error: Exception, *, status: int, detail: str, headers: Mapping[str, str], request_id: str | None
) -> AnthropicError:
    """Returns the answer to an error. `status`, `detail` and `headers` are those of the problem that it would be."""
    answer = _passed_on(error)
    named = {} if request_id is None else {"request-id": request_id}
    if answer is not None:
        retry = answer.headers.get("x-should-retry")  # never ours: Claude Code asks again without what was refused
        return AnthropicError(
            answer.status, answer.body, {**named, **_JSON} | ({} if retry is None else {"x-should-retry": retry})
        )
    form = _form(error, status)
    said: dict[str, Any] = {"type": form.type or _TYPES.get(form.status, "api_error"), "message": detail}
    if form.error_code is not None:
        said["details"] = {"error_code": form.error_code}
    body = {"type": "error", "error": said, "request_id": request_id}
    more = {} if form.retry is None else {"x-should-retry": "true" if form.retry else "false"}
    return AnthropicError(form.status, msgspec.json.encode(body), {**headers, **more, **named, **_JSON})


def error_event(error: AnthropicError) -> bytes:
    """Returns the event that ends a stream which failed after its head."""
    return b"event: error\ndata: " + b" ".join(error.body.splitlines()) + b"\n\n"


def _passed_on(error: Exception) -> WholeAnswer | None:
    """Returns what Anthropic answered, if it is about the request and in Anthropic's form."""
    answer = error.answer if isinstance(error, UpstreamFault) else None
    if answer is None or answer.status not in _PASSED_ON:
        return None
    try:
        said = msgspec.json.decode(answer.body, type=_Said).error.message.lower()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None  # cut off, or written by a proxy
    return None if any(words in said for words in _OF_OPERATOR) else answer


def _form(error: Exception, status: int) -> _Form:
    form = _Form(HTTPStatus.BAD_REQUEST if status in _AS_400 else status)
    match error:
        case QuotaExceeded():
            form = _of_quota(error)
        case UpstreamFault():
            form = _of_upstream(error)
        case BadEncoding() | InvalidRequest() | IdempotencyMismatch():
            form.error_code = error.error_code
        case UnknownModel():
            form = _Form(HTTPStatus.NOT_FOUND)
        case Unauthenticated():
            form.retry = False
        case PaymentRequired() | Forbidden() | IdempotencyConflict():  # the SDKs would ask a 409 again
            form.retry, form.error_code = False, None if error.code in _PLAIN_CODES else error.code
        case Overloaded():
            form = _Form(OVERLOADED, retry=True)
        case NakaError() if status == HTTPStatus.TOO_MANY_REQUESTS:
            form.retry = True
    return form


def _of_quota(error: QuotaExceeded) -> _Form:
    """A used-up budget is a 429 of the type `billing_error`, as of Anthropic's own gateway; other limits are rates."""
    if error.code == "blocked":
        return _Form(HTTPStatus.FORBIDDEN, retry=False, error_code=error.code)
    limit, used_up = error.limit, error.code in _USED_UP
    budget = used_up and limit is not None and (limit.meter in _MONEY or limit.window in (WindowKind.PERIOD, None))
    lasts = used_up and limit is not None and limit.window is not WindowKind.MINUTE
    kind = "billing_error" if budget else "rate_limit_error"
    return _Form(HTTPStatus.TOO_MANY_REQUESTS, kind, retry=not lasts, error_code=error.code)


def _of_upstream(error: UpstreamFault) -> _Form:
    if error.code in _BUSY_FAULTS:
        return _Form(OVERLOADED, retry=True)
    return _Form(error.status, retry=False if error.code in _HOPELESS_FAULTS else None)
