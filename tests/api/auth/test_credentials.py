"""How a key or a session comes with a request: read alike from every header, refused in words that name the fault."""

import json
import logging
from typing import Any

import httpx2
import pytest
import structlog

from api.auth.credentials import SECURE, UnreadableKey, key_of, session_of
from api.http.client_address import network_of
from core.tenancy.activity_log import MAX_ADDRESSES, ActivityLog
from core.tenancy.audit import PLATFORM
from tests.api.conftest import Api

KEY = "nk_test_" + "a" * 49


def scope_of(*headers: tuple[str, str], scheme: str = "http", **more: Any) -> dict[str, Any]:
    """A request with these headers, as a server hands it on."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return {"type": "http", "method": "GET", "scheme": scheme, "path": "/", "headers": raw, "client": None, **more}


@pytest.mark.parametrize("around", ["{}", " {} ", "\t{}\n", "{}\r\n", "\u00a0{}", "{}\u200b", "\ufeff{}\u2028"])
@pytest.mark.parametrize("name", ["x-api-key", "authorization"])
def test_what_surrounds_a_key_is_stripped_in_both_headers(name: str, around: str) -> None:
    sent = around.format(KEY)
    assert key_of(scope_of((name, sent if name == "x-api-key" else f"Bearer {sent}"))) == KEY


@pytest.mark.parametrize("inside", [" ", "\t", "\n", "\u00a0", "\u200b", "\x00"])
@pytest.mark.parametrize("name", ["x-api-key", "authorization"])
def test_what_is_within_a_key_is_refused_by_name(name: str, inside: str) -> None:
    sent = f"{KEY[:20]}{inside}{KEY[20:]}"
    with pytest.raises(UnreadableKey, match="white space"):
        key_of(scope_of((name, sent if name == "x-api-key" else f"Bearer {sent}")))


def test_two_keys_are_refused_and_one_sent_twice_is_one() -> None:
    both = ("authorization", f"bearer  {KEY}"), ("x-api-key", f"{KEY} ")
    assert key_of(scope_of(*both)) == KEY
    for other in (("x-api-key", "nk_test_another"), ("authorization", "Bearer other"), ("x-api-key", "")):
        with pytest.raises(UnreadableKey, match="two different API keys"):
            key_of(scope_of(*both, other))
    for empty in (("x-api-key", " "), ("authorization", "Bearer"), ("authorization", "Bearer ")):
        with pytest.raises(UnreadableKey, match="empty"):
            key_of(scope_of(empty))
    assert key_of(scope_of(("authorization", "Basic abc"))) is None


def test_on_https_only_the_prefixed_cookie_counts() -> None:
    prefixed, plain = ("cookie", "__Host-naka=good"), ("cookie", "naka_session=planted")
    assert session_of(scope_of(prefixed, plain, scheme="https")) == "good"
    for secure in ({"scheme": "https"}, {"scheme": "wss"}, {SECURE: True}):
        assert session_of(scope_of(plain, **secure)) is None
    assert session_of(scope_of(prefixed, plain)) == "planted", "on plain http the other one is not ours"
    assert session_of(scope_of(prefixed)) is None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("64:ff9b::192.0.2.7", "192.0.2.7"),
        ("2002:c000:207:1::1", "192.0.2.7"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdf8", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("testclient", "unknown"),
    ],
)
def test_a_customers_network(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.slow
async def test_an_address_that_fails_is_one_row_a_minute_whatever_it_tries(api: Api) -> None:
    directory = api.app.state.runtime.directory
    for _ in range(3):
        assert (await api.http.get("/v1/usage", headers={"x-api-key": KEY})).status_code == 401
    assert (await api.http.get("/v1/usage")).status_code == 401, "nothing was tried"
    for number in range(MAX_ADDRESSES + 5):
        directory.activity_log.failed(f"198.51.100.{number}", "")
    async with api.books.connection() as connection:
        await directory.activity_log.write(connection)
        directory.activity_log.failed("198.51.100.1", "")
        await directory.activity_log.write(connection)
    rows = await api.books.fetch("SELECT target, after, tenant_id FROM audit_log WHERE action = 'key.refused'")
    said = {row["target"]: json.loads(row["after"]) for row in rows}
    assert len(rows) == len(said) == MAX_ADDRESSES + 1
    assert said["address:127.0.0.1"] == {"attempts": 3, "keys": {KEY[:14]: 3}}
    assert said["address:others"]["attempts"] == 6
    assert {row["tenant_id"] for row in rows} == {PLATFORM}


async def test_when_a_key_was_last_used_is_written_once_in_ten_minutes(api: Api) -> None:
    admin = await api.tenant_admin()
    traces: ActivityLog = api.app.state.runtime.directory.activity_log
    listed = (await api.call(admin, "GET", f"/users/{admin.user_id}/keys", expect=200)).json()["items"]
    assert [item["last_used_at"] for item in listed] == [None]
    async with api.books.connection() as connection:
        await traces.write(connection)
        (first,) = (await api.call(admin, "GET", f"/users/{admin.user_id}/keys", expect=200)).json()["items"]
        assert first["last_used_at"] is not None
        await connection.execute("UPDATE key_uses SET last_used_at = last_used_at - interval '1 hour'")
        for _ in range(3):
            await api.call(admin, "GET", "/audit", expect=200)
        await traces.write(connection)
        moved = await connection.fetchval("SELECT last_used_at FROM key_uses")
    assert moved.isoformat() < first["last_used_at"], "it was told in these ten minutes already"


async def test_a_lost_write_of_traces_does_no_harm(api: Api) -> None:
    admin = await api.tenant_admin()
    await api.books.fetch("DROP TABLE key_uses")
    assert (await api.http.get("/v1/limits", headers=admin.headers)).status_code == 200
    heartbeat = api.app.state.runtime.metering.heartbeat
    await heartbeat.beat()
    await heartbeat._run_after_beat()
    assert (await api.http.get("/readyz")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/billing/bills", "/openapi.json", "/sign-in", "/nothing"])
async def test_no_cache_keeps_what_is_somebodys(api: Api, path: str) -> None:
    admin = await api.tenant_admin()
    assert (await api.http.get(path, headers=admin.headers)).headers["cache-control"] == "no-store"
    assert "cache-control" not in (await api.http.get("/static/naka.css")).headers


async def test_an_access_line_says_who_and_from_where(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await api.tenant_admin()
    monkeypatch.setattr(logging.getLogger("api.access"), "level", logging.INFO)
    said: list[dict[str, Any]] = []
    recorder = type("Log", (), {"info": staticmethod(lambda event, **fields: said.append({"event": event, **fields}))})
    monkeypatch.setattr("api.http.request_context.log", recorder)
    transport = httpx2.ASGITransport(app=api.app, client=("::ffff:192.0.2.7", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://naka.test") as http:
        await http.get("/v1/usage", headers=admin.headers)
        await http.post("/chat", json={"message": ""}, headers=admin.headers)
        await http.get("/v1/usage")
    who = {"tenant": str(admin.tenant_id), "key": admin.key[:14]}
    assert [{name: line.get(name) for name in ("tenant", "key")} for line in said] == [who, who, dict.fromkeys(who)]
    assert {line["address"] for line in said} == {"192.0.2.7"}
    structlog.contextvars.clear_contextvars()
