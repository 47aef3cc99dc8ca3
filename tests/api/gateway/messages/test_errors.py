"""Every error in Anthropic's form on its paths: status, type, and what the clients do next."""

import json
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.gateway.messages.body import InvalidRequest
from api.gateway.messages.encoding import BadEncoding
from api.gateway.messages.errors import error_event
from api.gateway.messages.features import NotOffered
from api.gateway.stream_errors import UpstreamFault, WholeAnswer, fault
from api.http.body import BodyTooLarge, ClientLeft, InvalidBody, WrongMediaType
from api.http.problems import REQUEST_ID, anthropic_error_of, problem_response
from core.errors import Conflict, Invalid, NotFound, PaymentRequired, Unavailable
from core.resilience.rates import RateLimited
from core.resilience.shares import PoolFull
from core.tenancy.principal import Forbidden, Unauthenticated
from metering.admission.admission import QuotaExceeded, TooLarge
from metering.admission.failure_rate import TooManyFailures
from metering.pricing.price import UnknownModel
from metering.quota.budgets import Budget
from metering.quota.limits import BillMeter, EffectiveLimit, LimitScope, Meter
from metering.quota.windows import WindowKind

SCOPE: dict[str, Any] = {"path": "/v1/messages", REQUEST_ID: "id-1"}


def quota(code: str, meter: Meter | BillMeter | None = None, window: WindowKind = WindowKind.DAY) -> QuotaExceeded:
    limit = None if meter is None else EffectiveLimit(LimitScope.USER, meter, window, 10)
    return QuotaExceeded("You've used it up.", code=code, retry_after_s=77, limit=limit)


def budget(code: str, meter: Meter, window: WindowKind | None) -> QuotaExceeded:
    limit = Budget("feature", "search", meter, window, 10)
    return QuotaExceeded("It is used up.", code=code, retry_after_s=77, limit=limit)


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry", "error_code"),
    [
        (InvalidRequest("model: Field required"), 400, "invalid_request_error", None, None),
        (InvalidRequest("thread: no", error_code="thread_unsupported_request"), 400, "invalid_request_error", None, 1),
        (InvalidBody("model: wrong"), 400, "invalid_request_error", None, None),
        (Invalid("wrong"), 400, "invalid_request_error", None, None),
        (WrongMediaType(), 400, "invalid_request_error", None, None),
        (RequestValidationError([]), 400, "invalid_request_error", None, None),
        (BadEncoding("gzip", status=400, error_code="e"), 400, "invalid_request_error", None, "e"),  # type: ignore[arg-type]
        (BadEncoding("gzip", status=413, error_code="e"), 413, "request_too_large", None, "e"),  # type: ignore[arg-type]
        (Unauthenticated(), 401, "authentication_error", False, None),
        (PaymentRequired("Pay.", code="unpaid"), 402, "billing_error", False, "unpaid"),
        (Forbidden("No."), 403, "permission_error", False, None),
        (Forbidden("No.", code="feature_not_in_plan"), 403, "permission_error", False, "feature_not_in_plan"),
        (NotOffered("files", "messages"), 403, "permission_error", False, "feature_not_offered"),
        (quota("blocked"), 403, "permission_error", False, "blocked"),
        (NotFound("none"), 404, "not_found_error", None, None),
        (UnknownModel("m"), 404, "not_found_error", None, None),
        (HTTPException(404), 404, "not_found_error", None, None),
        (HTTPException(405), 405, "invalid_request_error", None, None),
        (HTTPException(408), 408, "timeout_error", None, None),
        (Conflict("again"), 409, "conflict_error", None, None),
        (BodyTooLarge(9), 413, "request_too_large", None, None),
        (TooLarge("too large"), 413, "request_too_large", None, None),
        (fault("input_too_large"), 413, "request_too_large", None, None),
        (quota("limit_reached", Meter.SPEND), 429, "billing_error", False, "limit_reached"),
        (quota("limit_reached", BillMeter.CHARGE, WindowKind.PERIOD), 429, "billing_error", False, "limit_reached"),
        (quota("limit_reached", Meter.TOKENS, WindowKind.PERIOD), 429, "billing_error", False, "limit_reached"),
        (quota("limit_reached", Meter.TOKENS), 429, "rate_limit_error", False, "limit_reached"),
        (quota("limit_reached", Meter.REQUESTS, WindowKind.MINUTE), 429, "rate_limit_error", True, "limit_reached"),
        (budget("budget_exhausted", Meter.TOKENS, None), 429, "billing_error", False, "budget_exhausted"),
        (budget("budget_exhausted", Meter.TOKENS, WindowKind.DAY), 429, "rate_limit_error", False, "budget_exhausted"),
        (budget("held", Meter.TOKENS, None), 429, "rate_limit_error", True, "held"),
        (quota("held", Meter.SPEND), 429, "rate_limit_error", True, "held"),
        (quota("too_many_at_once"), 429, "rate_limit_error", True, "too_many_at_once"),
        (TooManyFailures(9), 429, "rate_limit_error", True, None),
        (RateLimited("Slower.", retry_after_s=9), 429, "rate_limit_error", True, None),
        (PoolFull("upstream"), 529, "overloaded_error", True, None),
        (fault("upstream_overloaded"), 529, "overloaded_error", True, None),
        (fault("upstream_rate_limited"), 529, "overloaded_error", True, None),
        (Unavailable(), 503, "api_error", None, None),
        (fault("shutting_down"), 503, "api_error", None, None),
        (fault("upstream_timeout"), 504, "timeout_error", None, None),
        (fault("upstream_broken"), 502, "api_error", None, None),
        (fault("upstream_credentials"), 502, "api_error", False, None),
        (fault("upstream_account"), 502, "api_error", False, None),
        (ClientLeft(), 500, "api_error", None, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_form(error: Exception, status: int, kind: str, *, retry: bool | None, error_code: object) -> None:
    response = problem_response(error, SCOPE)
    body = json.loads(bytes(response.body))

    assert (response.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["request_id"] == response.headers["request-id"] == "id-1"
    assert body["error"]["message"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers.get("x-should-retry") == {None: None, True: "true", False: "false"}[retry]
    code = "thread_unsupported_request" if error_code == 1 else error_code
    assert body["error"].get("details") == (None if code is None else {"error_code": code})


def test_when_to_come_back() -> None:
    assert problem_response(quota("limit_reached", Meter.SPEND), SCOPE).headers["retry-after"] == "77"
    assert problem_response(fault("upstream_overloaded", retry_after_s=3), SCOPE).headers["retry-after"] == "3"
    assert "retry-after" not in problem_response(Unauthenticated(), SCOPE).headers


def test_an_unknown_error_shows_nothing() -> None:
    body = json.loads(bytes(problem_response(ValueError("xylophone"), SCOPE).body))

    assert body["error"] == {"type": "api_error", "message": "Something went wrong on our side."}


def test_a_parameter_is_named_by_its_place() -> None:
    wrong = RequestValidationError([{"type": "greater_than_equal", "loc": ("query", "limit"), "input": "xylophone"}])

    body = json.loads(bytes(problem_response(wrong, SCOPE).body))

    assert body["error"]["message"] == "query.limit: greater_than_equal"


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/v1/models/a", "/v1/files"]
)
def test_paths_of_the_api(path: str) -> None:
    assert problem_response(NotFound("none"), {"path": path}).headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["", "/chat", "/v1/usage", "/v1/messagesx", "/v1/admin/messages"])
def test_other_paths_keep_problems(path: str) -> None:
    assert problem_response(NotFound("none"), {"path": path}).headers["content-type"] == "application/problem+json"


def refused(status: int, body: bytes) -> UpstreamFault:
    headers = {"content-type": "application/json", "request-id": "req_1", "anthropic-organization-id": "org"}
    return fault("upstream_rejected", answer=WholeAnswer(status, headers, body))


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_anthropic_says_of_the_request_is_not_changed(status: int) -> None:
    body = b'{"type":"error",  "error":{"type":"invalid_request_error","message":"thinking: \\u00e9"},"request_id":"r"}'

    response = problem_response(refused(status, body), SCOPE)

    assert (response.status_code, response.body) == (status, body)
    assert response.headers["request-id"] == "id-1"
    assert "x-should-retry" not in response.headers, "Claude Code asks again without what was refused"
    assert "anthropic-organization-id" not in response.headers


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, b"You have reached your specified workspace API usage limits."),
        (400, b"You have reached your specified API usage limits. You will regain access on 2026-12-01."),
        (400, b"Your credit balance is too low to access the Anthropic API."),
        (400, b"This organization has been disabled."),
        (400, b"Your Organization may not use this model."),
        (404, b"Not found in this workspace."),
        (400, b"Please see https://console.anthropic.com/settings."),
        (400, b"There is a problem with your billing details."),
        (401, b"invalid x-api-key"),
        (429, b"This request would exceed your organization's rate limit"),
        (500, b"Internal server error"),
    ],
)
def test_what_anthropic_says_of_the_operator_is_not_shown(status: int, message: bytes) -> None:
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"%b"}}' % message

    response = problem_response(refused(status, body), SCOPE)

    assert response.status_code == 502
    assert message not in bytes(response.body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"\x00", b'{"type":"error","error":{"message":"cut o'),
        *(b"{}", b'{"type":"error"}', b'{"type":"error","error":{"message":"m"}}'),
        b'{"type":"error","error":{"type":"invalid_request_error"}}',
        b'{"type":"error","error":{"type":"invalid_request_error","message":null}}',
        b'{"type":"fault","error":{"type":"invalid_request_error","message":"m"}}',
        b'{"error":{"type":"invalid_request_error","message":"m"}}',
    ],
)
def test_what_no_api_says_is_not_passed_on(body: bytes) -> None:
    assert problem_response(refused(400, body), SCOPE).status_code == 502


def test_the_words_of_a_request_are_no_words_about_the_operator() -> None:
    said = b'{"type":"error","error":{"type":"billing","message":"tools.0: bad name"},"request_id":"credit balance"}'

    assert problem_response(refused(400, said), SCOPE).body == said


def test_the_event_of_a_stream() -> None:
    event = error_event(anthropic_error_of(fault("upstream_overloaded"), SCOPE))

    name, data, end, rest = event.split(b"\n")
    assert (name, end, rest) == (b"event: error", b"", b"")
    assert json.loads(data.removeprefix(b"data: "))["error"]["type"] == "overloaded_error"


def test_an_event_is_one_line_even_of_another_form() -> None:
    said = b'{"type": "invalid_request_error", "message": "m"}'
    event = error_event(anthropic_error_of(refused(400, b'{\n"type": "error",\r\n"error": %b}' % said), SCOPE))

    assert event == b'event: error\ndata: { "type": "error", "error": %b}\n\n' % said
