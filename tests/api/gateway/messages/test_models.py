"""The models that a key may use, in Anthropic's form, with and without the provider's details."""

import asyncio
from typing import Any

import httpx2
import pytest

from api.routes.anthropic import page_of
from core.errors import Invalid
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.api.gateway.messages.conftest import MODELS, Provider
from tests.harness import Account
from tests.raw_provider import Request

SOME = ["claude-haiku-4-5", "claude-opus-5", "claude-sonnet-4-6"]


async def models(api: Api, account: Account, path: str = "", **query: Any) -> httpx2.Response:
    return await api.http.get(f"/v1/models{path}", headers=account.headers, params=query)


async def test_the_models_of_a_key(api: Api) -> None:
    account = await api.books.account(models=SOME)

    answer = (await models(api, account, beta="true")).json()

    opus, sonnet, haiku = MODELS[11], MODELS[1], MODELS[0] | {"id": "claude-haiku-4-5"}
    assert answer == {
        "data": [opus, sonnet, haiku],
        "has_more": False,
        "first_id": "claude-opus-5",
        "last_id": "claude-haiku-4-5",
    }
    assert (await models(api, account, "/claude-haiku-4-5")).json() == haiku


async def test_details_are_read_once(api: Api, provider: Provider) -> None:
    account = await api.books.account()

    await asyncio.gather(*(models(api, account) for _ in range(5)))
    await models(api, account)

    assert [request.line for request in provider.requests] == [
        "GET /v1/models?limit=10 HTTP/1.1",
        "GET /v1/models?limit=10&after_id=claude-other-7 HTTP/1.1",
    ]


async def test_pages(api: Api) -> None:
    account = await api.books.account(models=SOME)

    first = (await models(api, account, limit=2)).json()
    second = (await models(api, account, limit=2, after_id=first["last_id"])).json()
    back = (await models(api, account, limit=1, before_id=second["first_id"])).json()

    assert [one["id"] for one in first["data"]] == ["claude-opus-5", "claude-sonnet-4-6"]
    assert ([one["id"] for one in second["data"]], second["has_more"]) == (["claude-haiku-4-5"], False)
    assert (first["has_more"], back["has_more"], back["first_id"]) == (True, True, "claude-sonnet-4-6")
    none = {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert (await models(api, account, **{"lifecycle[]": "retired"})).json() == none


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"after_id": "xylophone"}])
async def test_a_page_that_is_none(api: Api, query: dict[str, Any]) -> None:
    answer = await models(api, await api.books.account(), **query)

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert next(iter(query)) in answer.json()["error"]["message"]
    assert "xylophone" not in answer.text


def test_pages_by_id() -> None:
    found = [{"id": name} for name in "abcde"]

    assert page_of(found, limit=2, after_id="b", before_id=None) == (found[2:4], True)
    assert page_of(found, limit=2, after_id="c", before_id=None) == (found[3:], False)
    assert page_of(found, limit=2, after_id=None, before_id="d") == (found[1:3], True)
    assert page_of(found, limit=3, after_id=None, before_id="d") == (found[:3], False)
    with pytest.raises(Invalid):
        page_of(found, limit=2, after_id="a", before_id="b")


async def test_a_model_that_the_key_may_not_use(api: Api) -> None:
    account = await api.books.account(models=["claude-opus-5"])

    for name in ("claude-sonnet-4-6", "claude-none"):
        answer = await models(api, account, f"/{name}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")


async def test_who_may_see_models(api: Api) -> None:
    reader = await api.books.account(scopes=[Scope.USAGE_READ])

    assert (await models(api, reader)).status_code == 403
    refused = await api.http.get("/v1/models")
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"data": [7]}', b'{"data": "\xff"}'])
async def test_without_the_provider_there_are_names(api: Api, provider: Provider, body: bytes) -> None:
    async def fail(_: Request) -> tuple[int, Any]:
        return 200 if body else 500, body

    provider.answer = fail
    account = await api.books.account(models=["claude-opus-5"])
    minimal = {
        "type": "model",
        "id": "claude-opus-5",
        "display_name": "claude-opus-5",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": None,
        "max_tokens": None,
        "capabilities": None,
    }

    assert (await models(api, account)).json()["data"] == [minimal]
    assert (await models(api, account)).json()["data"] == [minimal]
    assert len(provider.requests) == 1, "not asked again at once"


@pytest.mark.slow
async def test_a_provider_that_says_nothing_is_not_waited_for(api: Api, provider: Provider) -> None:
    async def hang(_: Request) -> tuple[int, Any]:
        await asyncio.sleep(60)
        return 500, b""

    provider.answer = hang
    account = await api.books.account(models=["claude-opus-5"])

    async with asyncio.timeout(10):
        assert (await models(api, account)).status_code == 200


async def test_windows(api: Api) -> None:
    details = api.app.state.runtime.model_details

    assert details.window_tokens("claude-haiku-4-5") == 1_000_000, "not known yet"
    await details.load()
    assert details.window_tokens("claude-haiku-4-5") == 200_000
    assert details.window_tokens("claude-haiku-4-5-20251001") == 200_000
    assert details.window_tokens("claude-none") == 1_000_000


@pytest.mark.parametrize(
    "path", ["/v1/messages/batches", "/v1/messages/batches/b/results", "/v1/files", "/v1/skills/s"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_is_not_offered(api: Api, path: str, method: str) -> None:
    account = await api.books.account()

    answer = await api.http.request(method, path, headers=account.headers)

    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
    assert "not offered" in answer.json()["error"]["message"]
    assert (await api.http.request(method, path)).status_code == 401


async def test_the_greeting_needs_no_key(api: Api) -> None:
    answer = await api.http.head("/api/hello")

    assert (answer.status_code, answer.content) == (200, b"")


async def test_browsers_may_send_and_read_what_the_sdk_does(api: Api) -> None:
    origin = {"origin": "http://localhost:3000"}
    wanted = "anthropic-version,anthropic-beta,anthropic-dangerous-direct-browser-access,x-api-key,x-stainless-os"
    asks = {"access-control-request-method": "POST", "access-control-request-headers": wanted}

    allowed = await api.http.options("/v1/messages", headers=origin | asks)
    answer = await api.http.get("/v1/models", headers=origin)

    assert allowed.status_code == 200, allowed.text
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"request-id", "x-should-retry", "retry-after"} <= set(exposed)
