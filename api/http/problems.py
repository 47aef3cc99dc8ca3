"""Errors as `application/problem+json` (RFC 9457), or in Anthropic's form on the paths of its API.

The table below alone maps the project's errors to HTTP statuses. Any other error is a 500 without details, logged here
with its traceback. No request data is echoed.
"""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.auth.sign_in_throttle import TooManyAttempts
from api.gateway.idempotency.errors import IdempotencyConflict, IdempotencyFull, IdempotencyMismatch
from api.gateway.messages.encoding import BadEncoding
from api.gateway.messages.errors import AnthropicError, anthropic_error, is_anthropic_path
from api.gateway.ratelimit_headers import refusal_headers
from api.gateway.stream_errors import UpstreamFault
from api.http.body import BodyTooLarge, InvalidBody, WrongMediaType
from billing.webhooks.inbox import StaleEvent
from core.errors import Conflict, Invalid, NakaError, NotFound, Overloaded, PaymentRequired, Unavailable
from core.identity.end_users import TooManyNewUsers, UserRequired
from core.identity.persons import NotAdmitted
from core.logs import get_logger
from core.resilience.outage import STORE_ERRORS, driver_error
from core.resilience.rates import RateLimited
from core.tenancy.principal import Forbidden, Unauthenticated
from metering.admission.admission import QuotaExceeded, TooLarge
from metering.admission.failure_rate import TooManyFailures
from metering.pricing.price import UnknownModel, UnknownModifier
from metering.quota.budgets import Budget
from metering.quota.limits import EffectiveLimit, Meter

REQUEST_ID = "naka.request_id"
_STATUS: dict[type[Exception], tuple[int, str]] = {
    Unauthenticated: (401, "unauthenticated"),
    PaymentRequired: (402, "payment_required"),
    Forbidden: (403, "forbidden"),
    NotAdmitted: (403, "not_admitted"),
    NotFound: (404, "not_found"),
    Conflict: (409, "conflict"),
    IdempotencyConflict: (409, "idempotency_conflict"),
    IdempotencyMismatch: (422, "idempotency_mismatch"),
    IdempotencyFull: (429, "idempotency_full"),
    StaleEvent: (410, "event_too_old"),
    BodyTooLarge: (413, "body_too_large"),
    TooLarge: (413, "input_exceeds_limit"),
    WrongMediaType: (415, "unsupported_media_type"),
    InvalidBody: (422, "invalid_request"),
    UserRequired: (422, "user_required"),  # before its base class
    Invalid: (422, "invalid_request"),
    UnknownModel: (422, "unknown_model"),
    UnknownModifier: (400, "unknown_modifier"),
    TooManyNewUsers: (429, "too_many_new_users"),
    TooManyAttempts: (429, "too_many_attempts"),
    Overloaded: (503, "overloaded"),  # before its base class
    TooManyFailures: (429, "too_many_failures"),
    RateLimited: (429, "rate_limited"),
    Unavailable: (503, "unavailable"),
}
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
}

_MAX_LOGGED_CHARS = 300
_LINKS = ("/sign-in/link/", "/sign-in/invitation/")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """An HTTP status, extra headers, and the body."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def code_of(error: NakaError) -> str:
    """Returns the code of an error, as its answer names it."""
    match error:
        case QuotaExceeded() | UpstreamFault() | PaymentRequired() | Forbidden() | IdempotencyConflict():
            return error.code
        case BadEncoding():
            return error.error_code
        case _:
            return _in_table(error)[1]


def _in_table(error: NakaError) -> tuple[int, str]:
    return next((found for kind, found in _STATUS.items() if isinstance(error, kind)), (500, "internal_error"))


def problem_of(error: Exception, scope: Scope) -> Problem:
    """Returns the problem of an error."""
    error = _unwrapped(error)
    retry_after_s = getattr(error, "retry_after_s", None) if isinstance(error, NakaError) else None
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    extra: dict[str, Any] = {}
    match error:
        case QuotaExceeded():
            status, code, detail = 429, error.code, str(error)
            if error.limit is not None:
                extra |= _limit_facts(error, error.limit)
                headers |= refusal_headers(error.limit, error.retry_after_s)
        case UpstreamFault():
            status, code, detail = error.status, error.code, str(error)
        case BadEncoding():
            status, code, detail = error.status, error.error_code, str(error)
        case RequestValidationError():
            status, code, detail = 422, "invalid_request", "The request does not match the documented format."
            # The place and the rule, not the value.
            extra["errors"] = [
                {"loc": [str(part)[:100] for part in item["loc"]], "rule": item["type"]} for item in error.errors()
            ]
        case HTTPException():
            status = error.status_code
            code, detail = _CODES.get(status, "http_error"), HTTPStatus(status).description or HTTPStatus(status).phrase
            headers.update(error.headers or {})
        case NakaError():
            _log_cause(error)
            status, code, detail = _in_table(error)[0], code_of(error), str(error)
            if isinstance(error, Unauthenticated):
                headers["www-authenticate"] = "Bearer"
        case _:
            status, code, detail = 500, "internal_error", "Something went wrong on our side."
    body = {
        "type": f"urn:naka:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": scope.get(REQUEST_ID),
        **extra,
    }
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed", path=logged_path(scope), request_id=scope.get(REQUEST_ID), exc_info=error)
    return Problem(status, body, headers)


def logged_path(scope: Scope) -> str:
    """Returns the path without the token of a link, which may still be valid."""
    path: str = scope.get("path", "")
    return next((f"{link}..." for link in _LINKS if path.startswith(link)), path)


def _limit_facts(error: QuotaExceeded, limit: EffectiveLimit | Budget) -> dict[str, Any]:
    """The limit for programs: its name and, but for spend, which a tenant may not see, what is used of how much."""
    if limit.meter is Meter.SPEND:
        return {"limit": limit.name}
    return {"limit": limit.name, "used": error.used, "quota": limit.limit, "unit": limit.unit}


def _log_cause(error: NakaError) -> None:
    """Logs the store's own message, which the caller does not see."""
    if isinstance(error, Unavailable) and isinstance(error.__cause__, STORE_ERRORS):
        cause = driver_error(error.__cause__)
        message = str(cause)[:_MAX_LOGGED_CHARS]
        log.warning("store_failed", error=type(cause).__name__, message=message, detail=str(error))


def anthropic_error_of(error: Exception, scope: Scope) -> AnthropicError:
    """Returns an error as the paths of Anthropic's API answer it; `error_event` makes it a stream's last event."""
    problem = problem_of(error, scope)
    return anthropic_error(
        _unwrapped(error),
        status=problem.status,
        detail=_detail(problem),
        headers=problem.headers,
        request_id=scope.get(REQUEST_ID),
    )


def problem_response(error: Exception, scope: Scope) -> Response:
    """Returns the answer to an error: a problem, or Anthropic's form by the path."""
    if is_anthropic_path(scope.get("path", "")):
        answer = anthropic_error_of(error, scope)
        return Response(answer.body, answer.status, answer.headers)
    problem = problem_of(error, scope)
    return Response(
        msgspec.json.encode(problem.body), problem.status, problem.headers, media_type="application/problem+json"
    )


def _unwrapped(error: Exception) -> Exception:
    """Returns the cause of an error that FastAPI wrapped in a 400, because it was raised while reading a body."""
    cause = error.__cause__
    return cause if isinstance(error, HTTPException) and isinstance(cause, NakaError) else error


def _detail(problem: Problem) -> str:
    """Returns the message of a problem, with the places of its errors: `query.limit: greater_than_equal`."""
    places = [f"{'.'.join(item['loc'])}: {item['rule']}" for item in problem.body.get("errors", ())]
    return "; ".join(places) or str(problem.body["detail"])


async def answer_with_problem(request: Request, error: Exception) -> Response:
    """Answers an error; the application's exception handler."""
    return problem_response(error, request.scope)
