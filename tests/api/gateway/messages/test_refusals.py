"""What `/v1/messages` refuses before anything is sent: in Anthropic's form, with nothing stored."""

import json
from typing import Any

import httpx2
import pytest

from core.settings import Settings
from core.tenancy.principal import Scope
from metering.quota.limits import LimitSet
from tests.api.conftest import Api
from tests.api.gateway.messages.conftest import Provider
from tests.api.http.test_key_before_body import Sent
from tests.harness import Account

BODY: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
HEADERS = {"content-type": "application/json", "anthropic-version": "2023-06-01"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"messages_body_max_bytes": 100_000})


async def ask(api: Api, account: Account, **change: Any) -> httpx2.Response:
    return await api.http.post("/v1/messages", json=BODY | change, headers=HEADERS | account.headers)


def is_error(answer: httpx2.Response, status: int, kind: str, code: str | None = None) -> None:
    body = answer.json()
    assert (answer.status_code, body["error"]["type"]) == (status, kind), answer.text
    assert body["error"].get("details") == (None if code is None else {"error_code": code})
    assert answer.headers["request-id"] == body["request_id"] == answer.headers["x-request-id"]
    assert "xylophone" not in answer.text


def sent(provider: Provider) -> list[str]:
    """Returns what reached the provider, but for its list of models."""
    return [request.line for request in provider.requests if "/v1/models" not in request.line]


async def test_nothing_is_read_from_who_has_no_key(api: Api) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        for framing in ({"content-length": "1000"}, {"transfer-encoding": "chunked"}):
            body = Sent()
            answer = await api.http.post(path, content=body.parts(), headers=HEADERS | framing)
            is_error(answer, 401, "authentication_error")
            assert answer.headers["x-should-retry"] == "false"
            assert not body.started.is_set()


@pytest.mark.parametrize(
    ("change", "status", "kind", "code"),
    [
        ({"max_tokens": "xylophone"}, 400, "invalid_request_error", None),
        ({"speed": "xylophone"}, 400, "invalid_request_error", None),
        ({"thread": {"type": "create"}}, 400, "invalid_request_error", "thread_unsupported_request"),
        ({"container": "xylophone"}, 403, "permission_error", "feature_not_offered"),
        ({"fallbacks": "default"}, 403, "permission_error", "feature_not_in_plan"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            403,
            "permission_error",
            "feature_not_in_plan",
        ),
        ({"model": "claude-none"}, 404, "not_found_error", None),
        ({"system": "a" * 100_000}, 413, "request_too_large", None),
    ],
)
async def test_a_request_that_is_refused(
    api: Api, provider: Provider, change: dict[str, Any], status: int, kind: str, code: str | None
) -> None:
    account = await api.books.account()

    is_error(await ask(api, account, **change), status, kind, code)
    assert await api.books.requests(account) == []
    assert not sent(provider)


@pytest.mark.slow
async def test_a_caller_who_is_refused(api: Api, provider: Provider) -> None:
    reader = await api.books.account(scopes=[Scope.USAGE_READ])
    small = await api.books.account(models=["claude-haiku-4-5"])
    blocked = await api.books.account(limits=LimitSet(concurrency=0))

    is_error(await ask(api, reader), 403, "permission_error")
    is_error(await ask(api, small), 403, "permission_error")
    is_error(await ask(api, blocked), 403, "permission_error", "blocked")
    assert not sent(provider)


async def test_a_body_in_another_form(api: Api) -> None:
    account = await api.books.account()

    for content, content_type in ((b"{", "application/json"), (json.dumps(BODY).encode(), "text/plain")):
        headers = HEADERS | account.headers | {"content-type": content_type}
        is_error(await api.http.post("/v1/messages", content=content, headers=headers), 400, "invalid_request_error")
