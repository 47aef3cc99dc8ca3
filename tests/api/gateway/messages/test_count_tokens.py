"""Token counts: the provider's own answer, for whom the key and the plan allow it, whatever was used before."""

import asyncio
import gzip
import json
from typing import Any

import httpx2
import pytest

from core.settings import Settings
from core.tenancy.directory import Directory
from core.tenancy.principal import Principal, Scope
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.api.conftest import Api
from tests.api.gateway.messages.conftest import Provider
from tests.harness import Account
from tests.raw_provider import Request

MODEL = "claude-sonnet-4-6"
BODY = b'{ "model": "claude-sonnet-4-6", "messages": [{"role":"user","content":"h\\u00e9"}],  "new": {"a":1}}'
HEADERS = {"content-type": "application/json", "anthropic-version": "2023-06-01"}


async def count(api: Api, account: Account | None, body: bytes = BODY, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    key = {} if account is None else {"x-api-key": account.key}
    path = "/v1/messages/count_tokens?beta=true"
    return await api.http.post(path, content=body, headers=HEADERS | key | named)


def is_error(answer: httpx2.Response, status: int, kind: str) -> str:
    """Asserts Anthropic's form, and returns the message."""
    body = answer.json()
    assert (answer.status_code, body["type"], body["error"]["type"]) == (status, "error", kind), answer.text
    assert answer.headers["request-id"] == body["request_id"] == answer.headers["x-request-id"]
    return str(body["error"]["message"])


async def test_the_body_goes_on_as_it_came(api: Api, provider: Provider) -> None:
    account = await api.books.account()

    answer = await count(api, account, anthropic_beta="a-1,b-2", anthropic_workspace_id="w", cookie="c=1")

    assert (answer.status_code, answer.json()) == (200, {"input_tokens": len(BODY)})
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert "anthropic-organization-id" not in answer.headers
    (sent,) = provider.requests
    assert (sent.line, sent.body) == ("POST /v1/messages/count_tokens?beta=true HTTP/1.1", BODY)
    assert (sent.headers["anthropic-version"], sent.headers["anthropic-beta"]) == ("2023-06-01", "a-1,b-2")
    assert not {"anthropic-workspace-id", "cookie"} & sent.headers.keys()
    assert account.key not in str(sent.headers)
    assert sent.headers["x-api-key"] == "never-used"


async def test_a_compressed_body(api: Api, provider: Provider) -> None:
    account = await api.books.account()

    assert (await count(api, account, gzip.compress(BODY), content_encoding="gzip")).status_code == 200
    assert provider.requests[0].body == BODY
    assert "content-encoding" not in provider.requests[0].headers
    wrong = await count(api, account, BODY, content_encoding="br")
    is_error(wrong, 400, "invalid_request_error")
    assert wrong.json()["error"]["details"] == {"error_code": "request_body_encoding_unsupported"}


@pytest.mark.slow
async def test_36_at_once(api: Api, provider: Provider) -> None:
    account = await api.books.account()
    running = most = 0

    async def slow(request: Request) -> tuple[int, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.3)
        running -= 1
        return await provider.usual(request)

    provider.answer = slow
    answers = await asyncio.gather(*(count(api, account) for _ in range(36)))

    assert [answer.status_code for answer in answers] == [200] * 36
    assert most == 16, "half of the places"


async def test_no_limit_blocks_a_count_and_nothing_is_metered(api: Api) -> None:
    nothing = LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 0), Limit(Meter.SPEND, WindowKind.DAY, 0)), concurrency=0)
    account = await api.books.account(limits=nothing, tenant_limits=nothing)

    assert (await count(api, account)).status_code == 200
    assert await api.books.requests(account) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "The request body is not valid JSON in UTF-8."),
        (b"{}", "model: Field required"),
        (b'{"model": "m"}', "messages: Field required"),
        (b'{"model": "m", "messages": [], "model": "m"}', "model: Field given more than once"),
    ],
)
async def test_an_invalid_body(api: Api, provider: Provider, body: bytes, message: str) -> None:
    answer = await count(api, await api.books.account(), body)

    assert is_error(answer, 400, "invalid_request_error") == message
    assert not provider.requests


async def test_a_key_is_checked_afresh(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, checks = Directory.authenticate, list[bool]()

    async def noted(directory: Directory, key: str, *, fresh: bool = False) -> Principal:
        checks.append(fresh)
        return await usual(directory, key, fresh=fresh)

    monkeypatch.setattr(Directory, "authenticate", noted)

    assert (await count(api, await api.books.account())).status_code == 200
    assert checks[0]


async def test_who_may_count(api: Api, provider: Provider) -> None:
    reader = await api.books.account(scopes=[Scope.USAGE_READ])
    small = await api.books.account(models=["claude-haiku-4-5"])

    unknown = await count(api, None)
    is_error(unknown, 401, "authentication_error")
    assert unknown.headers["x-should-retry"] == "false"
    is_error(await count(api, reader), 403, "permission_error")
    assert "claude-sonnet-4-6" in is_error(await count(api, small), 403, "permission_error")
    is_error(await count(api, await api.books.account(), BODY.replace(b"4-6", b"4-x")), 404, "not_found_error")
    assert not provider.requests


async def test_what_lives_in_the_operators_workspace_is_refused(api: Api, provider: Provider) -> None:
    block = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": [block]}]}).encode()

    is_error(await count(api, await api.books.account(), body), 403, "permission_error")
    assert not provider.requests


@pytest.mark.slow
async def test_what_the_provider_says_is_passed_on(api: Api, provider: Provider) -> None:
    account = await api.books.account()
    refusal = b'{"type":"error", "error":{"type":"invalid_request_error","message":"messages: no"},"request_id":"r"}'

    async def refuse(_: Request) -> tuple[int, Any]:
        return 400, refusal

    provider.answer = refuse
    answer = await count(api, account)

    assert (answer.status_code, answer.content) == (400, refusal)
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize(
    ("status", "as_status", "kind"),
    [(401, 502, "api_error"), (429, 529, "overloaded_error"), (529, 529, "overloaded_error"), (500, 502, "api_error")],
)
async def test_the_providers_faults(api: Api, provider: Provider, status: int, as_status: int, kind: str) -> None:
    account = await api.books.account()

    async def fail(_: Request) -> tuple[int, Any]:
        return status, {"type": "error", "error": {"type": "x", "message": "xylophone"}}

    provider.answer = fail
    assert "xylophone" not in is_error(await count(api, account), as_status, kind)


async def test_other_methods(api: Api) -> None:
    account = await api.books.account()

    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        answer = await api.http.get(path, headers=account.headers)
        is_error(answer, 405, "invalid_request_error")
        assert answer.headers["allow"] == "POST"
    is_error(await api.http.post("/v1/messages/none", headers=account.headers), 404, "not_found_error")


class TestRate:
    """A rate per user."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"messages_counts_per_minute": 6})

    @pytest.mark.slow
    async def test_it_is_bounded(self, api: Api) -> None:
        account, other = await api.books.account(), await api.books.account()
        answers = [await count(api, account) for _ in range(11)]

        assert [answer.status_code for answer in answers] == [200] * 10 + [429]
        is_error(answers[-1], 429, "rate_limit_error")
        assert int(answers[-1].headers["retry-after"]) in range(1, 11)
        assert answers[-1].headers["x-should-retry"] == "true"
        assert (await count(api, other)).status_code == 200


class TestLargeBodies:
    """A bound beside that of the other routes."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"request_body_max_bytes": 1024, "messages_body_max_bytes": 3_000_000})

    async def test_they_pass_here_only(self, api: Api) -> None:
        account = await api.books.account(scopes=[Scope.PLATFORM_ADMIN, Scope.CHAT])
        block = {"type": "text", "text": "a" * 2_900_000}
        large = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": [block]}]}).encode()

        assert (await count(api, account, large)).json() == {"input_tokens": len(large)}
        is_error(await count(api, account, large + b" " * 200_000), 413, "request_too_large")
        packed = gzip.compress(json.dumps({"text": "ab" * 2_000_000}).encode())
        bomb = await count(api, account, packed, content_encoding="gzip")
        is_error(bomb, 413, "request_too_large")
        assert (await api.call(account, "POST", "/tenants", content=b" " * 2000)).status_code == 413
        assert not api.app.state.runtime.pools.counts.taken
