"""Razorpay's way in: only what it signed is kept, before it is acknowledged; and what an operator sees of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from api.app import create_app
from billing.webhooks.inbox import MAX_BYTES
from core.settings import Settings
from sandbox.postgres import Postgres
from tests import servers
from tests.api.conftest import Api
from tests.billing.deliveries import MADE_S, event_body, signed
from tests.simulated_razorpay import WEBHOOK_SECRET

PATH = "/webhooks/razorpay"
PREVIOUS = "whsec_before"


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """With two webhook secrets."""
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        anthropic_api_key="never-used",
        razorpay_webhook_secret=(SecretStr(WEBHOOK_SECRET), SecretStr(PREVIOUS)),
    )


async def _deliver(api: Api, body: bytes, headers: dict[str, str]) -> httpx2.Response:
    return await api.http.post(PATH, content=body, headers=headers)


async def _kept(api: Api) -> list[Any]:
    return await api.books.fetch("SELECT * FROM webhook_events ORDER BY event_id")


async def test_a_genuine_one_is_kept_and_acknowledged(api: Api) -> None:
    body = event_body()
    answers = [await _deliver(api, body, signed(body, "TmA1c9RkVe7HbN")) for _ in range(2)]

    assert [(one.status_code, one.json()) for one in answers] == [
        (200, {"kept": True, "again": False}),
        (200, {"kept": True, "again": True}),
    ]
    (row,) = await _kept(api)
    assert (row["event_id"], row["body"], row["state"]) == ("TmA1c9RkVe7HbN", body, "received")


async def test_sixteen_at_once_are_one(api: Api) -> None:
    body = event_body()
    answers = await asyncio.gather(*(_deliver(api, body, signed(body, "TmA1c9RkVe7HbN")) for _ in range(16)))
    assert {one.status_code for one in answers} == {200}
    assert sum(not one.json()["again"] for one in answers) == 1
    assert len(await _kept(api)) == 1


async def test_the_previous_secret_counts(api: Api) -> None:
    body = event_body()
    assert (await _deliver(api, body, signed(body, secret=PREVIOUS))).status_code == 200


@pytest.mark.parametrize("what", ["forged", "tampered", "unsigned", "padded"])
async def test_what_razorpay_did_not_sign_changes_nothing(api: Api, what: str) -> None:
    body = event_body()
    headers = signed(body, "TmA1c9RkVe7HbN")
    match what:
        case "forged":
            headers = signed(body, "TmA1c9RkVe7HbN", secret="guessed")
        case "tampered":
            body = body.replace(b"charged", b"halted!")
        case "unsigned":
            del headers["x-razorpay-signature"]
        case _:
            body += b"\n"

    answer = await _deliver(api, body, headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["content-type"] == "application/problem+json"
    assert await _kept(api) == []
    assert "naka_webhooks_refused_total 1.0" in (await api.http.get("/metrics")).text


async def test_what_is_too_old_is_refused_in_words(api: Api) -> None:
    body = event_body().replace(str(MADE_S).encode(), str(MADE_S - 100_000).encode())
    answer = await _deliver(api, body, signed(body, "TmA1c9RkVe7HbN"))
    assert (answer.status_code, answer.json()["code"]) == (410, "event_too_old")
    assert await _kept(api) == []
    assert "naka_webhooks_stale_total 1.0" in (await api.http.get("/metrics")).text


async def test_too_large_is_refused_before_anything(api: Api) -> None:
    body = b" " * (MAX_BYTES + 1)
    assert (await _deliver(api, body, signed(body))).status_code == 413
    assert await _kept(api) == []


async def test_genuine_nonsense_is_acknowledged_and_parked(api: Api) -> None:
    assert (await _deliver(api, b"{", signed(b"{"))).status_code == 200
    (row,) = await _kept(api)
    assert (row["state"], bool(row["reason"])) == ("parked", True)


async def test_an_operator_lists_shows_and_replays(api: Api) -> None:
    admin, tenant = await api.platform_admin(), await api.tenant_admin()
    for name in ("c", "b", "a"):
        body = event_body("settlement.processed", settlement={"id": f"setl_{name}"})
        await _deliver(api, body, signed(body, name))
    other = event_body()
    await _deliver(api, other, signed(other, "d"))

    first = (await api.call(admin, "GET", "/webhooks?state=ignored&limit=2", expect=200)).json()
    then = (await api.call(admin, "GET", f"/webhooks?state=ignored&limit=2&cursor={first['next']}", expect=200)).json()
    assert sorted(one["id"] for one in first["items"] + then["items"]) == ["a", "b", "c"]
    assert "body" not in first["items"][0]
    assert (await api.call(admin, "GET", "/webhooks/a", expect=200)).json()["body"] == body.decode()

    replayed = (await api.call(admin, "POST", "/webhooks/a/replay", expect=200)).json()
    assert (replayed["state"], replayed["tries"], replayed["reason"]) == ("received", 0, None)
    (entry,) = await api.books.fetch("SELECT target FROM audit_log WHERE action = 'webhook.replay'")
    assert entry["target"] == "webhook:a"

    for method, path in (("GET", "/webhooks"), ("GET", "/webhooks/a"), ("POST", "/webhooks/a/replay")):
        await api.call(tenant, method, path, expect=403)
        await api.call(None, method, path, expect=401)
    await api.call(admin, "GET", "/webhooks/nothing", expect=404)


@pytest.fixture
async def away(
    private_postgres: Callable[..., Postgres], settings: Settings
) -> AsyncIterator[tuple[Postgres, httpx2.AsyncClient]]:
    """An API whose Postgres can be stopped."""
    postgres = private_postgres()
    url = await asyncio.to_thread(servers.migrated, postgres.url)
    app = create_app(settings.model_copy(update={"database_url": url}))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://naka.test") as http,
    ):
        yield postgres, http


@pytest.mark.slow
@pytest.mark.chaos
async def test_postgres_away_is_not_acknowledged(away: tuple[Postgres, httpx2.AsyncClient]) -> None:
    postgres, http = away
    body = event_body()
    await asyncio.to_thread(postgres.stop)
    refused = await http.post(PATH, content=body, headers=signed(body, "TmA1c9RkVe7HbN"))
    await asyncio.to_thread(postgres.start)
    brought_again = await http.post(PATH, content=body, headers=signed(body, "TmA1c9RkVe7HbN"))

    assert (refused.status_code, brought_again.status_code) == (503, 200)
    assert brought_again.json() == {"kept": True, "again": False}
