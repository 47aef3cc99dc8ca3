"""Errors as our callers see them: `application/problem+json` (RFC 9457), every one in this one shape.

The table below is the only place where an error of the project gets an HTTP status. What is not in it is a 500 that
says nothing; what came in is never echoed.
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

from api.attempts import TooManyAttempts
from api.body import BodyTooLarge, InvalidBody, WrongMediaType
from api.faults import UpstreamFault
from api.ratelimit import refusal_headers
from core.errors import Conflict, Invalid, NakaError, NotFound, Overloaded, PaymentRequired, Unavailable
from core.tenancy.principal import Forbidden, Unauthenticated
from metering.admission import QuotaExceeded, TooLarge
from metering.pricing import UnknownModel

REQUEST_ID = "naka.request_id"
_STATUS: dict[type[Exception], tuple[int, str]] = {
    Unauthenticated: (401, "unauthenticated"),
    PaymentRequired: (402, "payment_required"),
    Forbidden: (403, "forbidden"),
    NotFound: (404, "not_found"),
    Conflict: (409, "conflict"),
    BodyTooLarge: (413, "body_too_large"),
    TooLarge: (413, "input_exceeds_limit"),
    WrongMediaType: (415, "unsupported_media_type"),
    InvalidBody: (422, "invalid_request"),
    Invalid: (422, "invalid_request"),
    UnknownModel: (422, "unknown_model"),
    TooManyAttempts: (429, "too_many_attempts"),
    Overloaded: (503, "overloaded"),  # before what it is a kind of
    Unavailable: (503, "unavailable"),
}
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


@dataclass(frozen=True, slots=True)
class Problem:
    """A status, headers of its own, and the body."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def problem_of(error: Exception, scope: Scope) -> Problem:
    """What a caller is told of an error."""
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    match error:
        case QuotaExceeded():
            status, code, detail = 429, error.code, str(error)
            headers["retry-after"] = str(error.retry_after_s)
            if error.limit is not None:
                extra["limit"] = error.limit.name
                headers |= refusal_headers(error.limit, error.retry_after_s)
        case UpstreamFault():
            status, code, detail = error.status, error.code, str(error)
            if error.retry_after_s is not None:
                headers["retry-after"] = str(error.retry_after_s)
        case RequestValidationError():
            status, code, detail = 422, "invalid_request", "the request does not have the documented form"
            extra["errors"] = [_invalid(item) for item in error.errors()]
        case HTTPException():
            status = error.status_code
            code, detail = _CODES.get(status, "http_error"), HTTPStatus(status).description or HTTPStatus(status).phrase
            headers.update(error.headers or {})
        case NakaError():
            status, code = _by_table(error)
            detail = str(error)
            headers |= _headers(error)
        case _:
            status, code, detail = 500, "internal_error", "something went wrong on our side"
    body = {
        "type": f"urn:naka:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": scope.get(REQUEST_ID),
        **extra,
    }
    return Problem(status, body, headers)


def _by_table(error: NakaError) -> tuple[int, str]:
    """The status, and the code, which a refusal for want of payment brings along."""
    status, code = next((found for kind, found in _STATUS.items() if isinstance(error, kind)), (500, "internal_error"))
    return status, error.code if isinstance(error, PaymentRequired) else code


def _headers(error: NakaError) -> dict[str, str]:
    match error:
        case Unavailable() | TooManyAttempts():
            return {"retry-after": str(error.retry_after_s)}
        case Unauthenticated():
            return {"www-authenticate": "Bearer"}
        case _:
            return {}


def problem_response(error: Exception, scope: Scope) -> Response:
    """The same as an HTTP answer."""
    problem = problem_of(error, scope)
    return Response(
        msgspec.json.encode(problem.body), problem.status, problem.headers, media_type="application/problem+json"
    )


async def answer_with_problem(request: Request, error: Exception) -> Response:
    """The exception handler of the application. FastAPI makes a 400 of whatever broke its reading of a body."""
    cause = error.__cause__
    return problem_response(cause if isinstance(cause, BodyTooLarge) else error, request.scope)


def _invalid(item: dict[str, Any]) -> dict[str, Any]:
    """One finding of the validation: where, and which rule; not what was sent."""
    return {"loc": [str(part)[:100] for part in item["loc"]], "rule": item["type"]}
