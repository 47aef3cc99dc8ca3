"""Short-lived tokens: what they may do, and everything that ends them."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core.tenancy.principal import Scope
from tests import fork_server
from tests.harness import Account, Api, Books, client, scripted
from tests.journeys.callers import eventually

BACKEND = [Scope.CHAT_AS_USER, Scope.USAGE_READ]
ADMIN = [Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ]
APP = "https://app.acme.example"
VERSION = {"anthropic-version": "2023-06-01"}
MESSAGES = {"model": "claude-sonnet-4-6", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
AWAY = "redis://127.0.0.1:1/0"
"""A process without Redis hears of no change, so what it caches is old."""


async def made(http: httpx2.AsyncClient, account: Account, user: str = "ada", **body: Any) -> dict[str, Any]:
    answer = await http.post("/v1/tokens", json={"user": user, "ttl_s": 600, **body}, headers=account.headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def token_of(http: httpx2.AsyncClient, account: Account, user: str = "ada", **body: Any) -> dict[str, str]:
    """The headers of a new token."""
    return {"authorization": f"Bearer {(await made(http, account, user, **body))['token']}"}


async def ask(http: httpx2.AsyncClient, headers: dict[str, str], **body: Any) -> tuple[int, str | None]:
    answer = await http.post("/chat", json={"message": scripted(words=3), **body}, headers=headers)
    return answer.status_code, answer.json()["code"] if answer.status_code != 200 else None


async def test_a_token_chats_and_reads_its_own_usage_and_limits(http: httpx2.AsyncClient, books: Books) -> None:
    backend = await books.account(scopes=BACKEND)
    token = await made(http, backend)
    assert token["token"].startswith("nk_tmp_")
    left = datetime.fromisoformat(token["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=590) < left <= timedelta(seconds=600)
    headers = {"authorization": f"Bearer {token['token']}"}

    assert await ask(http, headers) == (200, None)
    by_api_key = {"x-api-key": token["token"], **VERSION}
    assert (await http.post("/v1/messages", json=MESSAGES, headers=by_api_key)).status_code == 200
    counted = {name: MESSAGES[name] for name in ("model", "messages")}
    assert (await http.post("/v1/messages/count_tokens", json=counted, headers=headers | VERSION)).status_code == 200
    assert (await http.get("/v1/models", headers=headers)).status_code == 200
    assert (await http.get("/v1/usage", headers=headers)).json()["totals"]["requests"] == 2
    assert (await http.get("/v1/limits", headers=headers)).status_code == 200
    rows = await books.fetch(
        "SELECT r.key_id, u.external_id FROM usage_requests r JOIN users u ON u.id = r.user_id WHERE r.tenant_id = $1",
        backend.tenant_id,
    )
    assert {(row["key_id"], row["external_id"]) for row in rows} == {(backend.key_id, "ada")}


async def test_a_token_does_nothing_else(http: httpx2.AsyncClient, books: Books) -> None:
    admin = await books.account(scopes=[*ADMIN, Scope.CHAT_AS_USER])
    headers = await token_of(http, admin)
    other = await http.post("/v1/tokens", json={"user": "eve", "ttl_s": 60}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (403, "forbidden")
    assert await ask(http, headers | {"naka-user": "eve"}) == (403, "forbidden")
    assert await ask(http, headers, user="ada") == (403, "forbidden")
    assert (await http.get(f"/v1/admin/tenants/{admin.tenant_id}/users", headers=headers)).status_code == 403
    signed_in = await http.post(
        "/sign-in", data={"key": headers["authorization"][7:]}, headers={"sec-fetch-site": "same-origin"}
    )
    assert "naka_session" not in signed_in.headers.get("set-cookie", "")
    without_usage = await books.account(scopes=[Scope.CHAT_AS_USER])
    assert (await http.get("/v1/usage", headers=await token_of(http, without_usage))).status_code == 403


async def test_a_token_opens_no_page_and_ends_no_session_of_its_key(http: httpx2.AsyncClient, books: Books) -> None:
    backend = await books.account(scopes=[*BACKEND, Scope.CHAT])
    own_pages = {"sec-fetch-site": "same-origin"}
    assert (await http.post("/sign-in", data={"key": backend.key}, headers=own_pages)).status_code == 303
    cookies = dict(http.cookies)
    http.cookies.clear()
    headers = await token_of(http, backend)
    for method, path in (
        ("GET", "/session"),
        ("POST", "/session/end-all"),
        ("POST", f"/session/switch/{backend.tenant_id}"),
        ("GET", "/"),
        ("GET", "/account"),
    ):
        answer = await http.request(method, path, headers=headers | own_pages | {"accept": "text/html"})
        assert answer.status_code == 403, (path, answer.status_code)
        assert backend.key[:12] not in answer.text, path
    found = await books.fetch("SELECT ended_at FROM web_sessions WHERE key_id = $1", backend.key_id)
    assert [row["ended_at"] for row in found] == [None]
    signed_in = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    assert (await http.get("/session", headers=signed_in)).status_code == 200


async def test_who_may_make_which_tokens(http: httpx2.AsyncClient, books: Books) -> None:
    backend = await books.account(scopes=BACKEND, models=["claude-sonnet-4-6"])
    await books.fetch("UPDATE api_keys SET expires_at = now() + interval '5 minutes' WHERE id = $1", backend.key_id)

    async def code(account: Account, **body: Any) -> tuple[int, str]:
        answer = await http.post("/v1/tokens", json={"user": "ada", "ttl_s": 60, **body}, headers=account.headers)
        return answer.status_code, answer.json().get("code")

    assert await code(await books.account()) == (403, "forbidden")
    assert await code(backend, ttl_s=600) == (403, "forbidden"), "it would outlive its key"
    assert await code(backend, models=["claude-haiku-4-5"]) == (403, "forbidden")
    wrong: list[dict[str, Any]] = [
        {"ttl_s": 59},
        {"ttl_s": 86_401},
        {"ttl_s": "60"},
        {"user": " "},
        {"user": "a\x00b"},
        {"origins": ["*"]},
        {"origins": ["app"]},
        {"origins": []},
        {"limits": {"requests": -1}},
        {"limits": {"input_tokens": 1}},
        {"models": []},
        {"tags": {"nk:token": "x"}},
        {"tags": {"a": ""}},
        {"tags": {f"tag{number}": "x" for number in range(9)}},
        {"models": [f"claude-sonnet-{number}-{'x' * 80}" for number in range(90)]},
        {"expires_at": "2031-01-01T00:00:00Z"},
    ]
    for body in wrong:
        assert (await code(backend, **body))[0] in (403, 422), body
        assert (await code(backend, **body))[1] in ("invalid_request", "forbidden"), body
    assert (await http.post("/v1/tokens", json={"user": "ada", "ttl_s": 60})).status_code == 401
    rows = await books.fetch("SELECT external_id FROM users WHERE tenant_id = $1", backend.tenant_id)
    assert "ada" not in {row["external_id"] for row in rows}
    assert (await code(backend))[0] == 201


async def test_a_token_may_use_the_models_that_it_and_its_key_allow(http: httpx2.AsyncClient, books: Books) -> None:
    backend = await books.account(scopes=BACKEND, models=["claude-sonnet-4-6", "claude-haiku-4-5"])
    headers = await token_of(http, backend, models=["claude-haiku-4-5"])
    assert await ask(http, headers, model="claude-haiku-4-5") == (200, None)
    assert await ask(http, headers, model="claude-sonnet-4-6") == (403, "forbidden")
    inherited = await token_of(http, backend)
    assert await ask(http, inherited, model="claude-opus-4-6") == (403, "forbidden")
    listed = (await http.get("/v1/models", headers=headers)).json()["data"]
    assert [model["id"] for model in listed] == ["claude-haiku-4-5"]


async def test_a_token_bound_to_origins_comes_from_their_pages_only(http: httpx2.AsyncClient, books: Books) -> None:
    backend = await books.account(scopes=BACKEND)
    headers = await token_of(http, backend, origins=["HTTPS://App.Acme.Example:443/"])
    assert await ask(http, headers | {"origin": APP}) == (200, None)
    for origin in ("https://evil.example", "https://app.acme.example.evil.example", "http://app.acme.example", "null"):
        assert await ask(http, headers | {"origin": origin}) == (403, "origin_not_allowed")
        assert (await http.get("/v1/usage", headers=headers | {"origin": origin})).status_code == 403
    assert await ask(http, headers) == (403, "origin_not_allowed")
    messages = await http.post("/v1/messages", json=MESSAGES, headers=headers | {"origin": "https://evil.example"})
    assert messages.status_code == 403


async def test_a_forged_token_is_a_wrong_key(http: httpx2.AsyncClient, books: Books) -> None:
    backend, victim = await books.account(scopes=BACKEND), await books.account(scopes=BACKEND)
    token = (await made(http, backend))["token"]
    head, claims, signature = token.removeprefix("nk_tmp_").split(".")
    theirs = (await made(http, victim))["token"].removeprefix("nk_tmp_").split(".")[1]
    none = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    forged = [
        f"{head}.{theirs}.{signature}",
        f"{none}.{claims}.",
        f"{none}.{claims}.{signature}",
        f"{head}.{claims}.{signature[:-2]}",
        f"{head}.{claims}",
        f"{head[:-2]}.{claims}.{signature}",
        "",
        "..",
        "x" * 9000,
        json.dumps({"alg": "HS256"}),
    ]
    for text in forged:
        headers = {"authorization": f"Bearer nk_tmp_{text}"}
        assert await ask(http, headers) == (401, "unauthenticated"), text
        assert (await http.get("/v1/usage", headers=headers)).status_code == 401, text
    assert await ask(http, {"authorization": f"Bearer {token}"}) == (200, None)


@pytest.mark.slow
async def test_a_token_expires_also_where_it_is_cached(
    start_api: Callable[..., Api], books: Books, tmp_path: Path
) -> None:
    backend, clock = await books.account(scopes=BACKEND), tmp_path / "clock"
    served = start_api(TEST_CLOCK_FILE=str(clock), DIRECTORY_TTL_S="300")
    async with client(served.url) as http:
        short, long = await token_of(http, backend, ttl_s=60), await token_of(http, backend, ttl_s=86_400)
        assert [await ask(http, headers) for headers in (short, long)] == [(200, None)] * 2
        clock.write_text("60_000")
        await asyncio.sleep(0.05)  # it is read every 5 ms
        assert [await ask(http, headers) for headers in (short, long)] == [(401, "unauthenticated"), (200, None)]
        assert (await http.get("/v1/usage", headers=short)).status_code == 401
        assert (await http.get("/v1/usage", headers=long)).status_code == 200


@pytest.mark.slow
async def test_revoking_its_key_or_disabling_its_user_ends_a_token_on_every_process(
    http: httpx2.AsyncClient, start_api: Callable[..., Api], books: Books
) -> None:
    admin = await books.account(scopes=ADMIN)
    backend = await books.account(scopes=BACKEND, tenant_id=admin.tenant_id)
    other = start_api(DIRECTORY_TTL_S="300", REDIS_URL=AWAY)
    ada, bob = await token_of(http, backend, "ada"), await token_of(http, backend, "bob")
    async with client(other.url) as there:
        both = (http, there)
        for each in both:
            assert [await ask(each, headers) for headers in (ada, bob)] == [(200, None)] * 2

        (row,) = await books.fetch("SELECT id FROM users WHERE tenant_id = $1 AND external_id = 'ada'", admin.tenant_id)
        path = f"/v1/admin/users/{row['id']}/state"
        await http.put(path, json={"disabled": True}, headers=admin.headers)
        for each in both:
            assert await ask(each, ada) == (403, "user_disabled")
            assert (await each.get("/v1/usage", headers=ada)).json()["code"] == "user_disabled"
            assert await ask(each, bob) == (200, None)
        await http.put(path, json={"disabled": False}, headers=admin.headers)
        assert await ask(http, ada) == (200, None)

        owner = f"/v1/admin/users/{backend.user_id}/state"
        assert [await ask(each, backend.headers | {"naka-user": "bob"}) for each in both] == [(200, None)] * 2
        await http.put(owner, json={"disabled": True}, headers=admin.headers)
        for each in both:
            for headers in (ada, bob, backend.headers | {"naka-user": "bob"}):
                assert await ask(each, headers) == (403, "user_disabled"), "the user whose key it is"
                assert (await each.get("/v1/usage", headers=headers)).json()["code"] == "user_disabled"
        await http.put(owner, json={"disabled": False}, headers=admin.headers)
        assert await ask(http, bob) == (200, None)

        revoked = await http.delete(f"/v1/admin/keys/{backend.key_id}", headers=admin.headers)
        assert revoked.status_code == 204
        for each in both:
            for headers in (ada, bob):
                assert await ask(each, headers) == (401, "unauthenticated")
                assert (await each.get("/v1/usage", headers=headers)).status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [False, True])
async def test_the_secret_is_rotated_without_a_restart(
    at_once: bool,  # noqa: FBT001 - a parameter of the test
    http: httpx2.AsyncClient,
    books: Books,
    story_environment: dict[str, str],
) -> None:
    backend = await books.account(scopes=BACKEND)
    before = await token_of(http, backend)
    assert await ask(http, before) == (200, None)

    options = ["--at-once"] if at_once else []
    process = fork_server.start("api.cli", "token", "rotate-secret", *options, variables=story_environment)
    assert await asyncio.to_thread(process.wait, 60) == 0

    after = await token_of(http, backend)
    key_ids = [headers["authorization"].split(".")[0] for headers in (before, after)]
    assert key_ids[0] != key_ids[1]
    assert await ask(http, after) == (200, None)
    expected = (401, "unauthenticated") if at_once else (200, None)

    async def heard() -> bool:
        return await ask(http, before) == expected

    await eventually(heard)
    assert await ask(http, after) == (200, None)
