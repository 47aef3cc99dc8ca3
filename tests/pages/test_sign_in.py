"""A key for a session: what it may do, whom it obeys, and when it is over."""

import logging
import re
from collections.abc import AsyncIterator
from html import escape
from urllib.parse import quote
from uuid import uuid4

import httpx2
import pytest

from api.app import create_app
from api.auth.sign_in_throttle import FREE_ATTEMPTS
from api.services.accounts.sign_in_links import LINK_TTL_S, make_link
from core.settings import Settings
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.harness import Account, Books
from tests.pages.conftest import ORIGIN, SAME_ORIGIN, SignIn, submit

CHAT_AND_READ = (Scope.CHAT, Scope.USAGE_READ)


@pytest.fixture
async def account(api: Api) -> Account:
    return await api.books.account(scopes=CHAT_AND_READ)


def stranger(api: Api, *, address: str = "127.0.0.1", base_url: str = ORIGIN) -> httpx2.AsyncClient:
    """A browser that is not signed in."""
    transport = httpx2.ASGITransport(app=api.app, client=(address, 1))
    return httpx2.AsyncClient(transport=transport, base_url=base_url, headers=SAME_ORIGIN)


async def test_a_session_may_what_its_key_may(api: Api, account: Account, sign_in: SignIn) -> None:
    browser = await sign_in(account)
    assert (await browser.get("/v1/usage")).status_code == 200
    assert (await browser.get("/")).status_code == 200
    refused = await browser.get("/v1/admin/tenants")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    (row,) = await api.books.fetch("SELECT * FROM web_sessions")
    token = browser.cookies["naka_session"]
    assert token not in str(dict(row)), "only its hash is kept"
    assert (row["tenant_id"], row["key_id"]) == (account.tenant_id, account.key_id)


async def test_the_cookie_is_out_of_reach(api: Api, account: Account) -> None:
    async with stranger(api) as browser:
        answer = await browser.post("/sign-in", data={"key": f" {account.key}\n"})
    (cookie,) = answer.headers.get_list("set-cookie")
    assert re.fullmatch(r"naka_session=ns_[\w-]{43}; HttpOnly; Max-Age=43200; Path=/; SameSite=strict", cookie), cookie
    assert answer.headers["cache-control"] == "no-store"
    async with stranger(api, base_url="https://naka.test") as browser:
        answer = await browser.post("/sign-in", data={"key": account.key})
        (cookie,) = answer.headers.get_list("set-cookie")
        assert cookie.startswith("__Host-naka=")
        assert "; Secure" in cookie
        assert (await browser.get("/v1/usage")).status_code == 200


async def test_who_signs_in_and_out_is_in_the_audit_log(api: Api, account: Account) -> None:
    async with stranger(api, address="::ffff:192.0.2.7") as browser:
        assert (await browser.post("/sign-in", data={"key": account.key})).status_code == 303
        await browser.post("/sign-out")
        await browser.post("/sign-out")
    rows = await api.books.fetch(
        "SELECT action, actor, actor_key_id, after->>'address' AS address FROM audit_log"
        " WHERE tenant_id = $1 AND action LIKE 'session.%' ORDER BY id",
        account.tenant_id,
    )
    who = (f"key:{account.key_id}", account.key_id, "192.0.2.7")
    assert [tuple(row) for row in rows] == [("session.begin", *who), ("session.end", *who)]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": ORIGIN},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "", "origin": "https://evil.example"},
        {"sec-fetch-site": "", "origin": "null"},
        {"sec-fetch-site": ""},
    ],
)
async def test_only_our_own_pages_may_change_something(api: Api, sign_in: SignIn, headers: dict[str, str]) -> None:
    admin = await api.platform_admin()
    browser = await sign_in(admin)
    token = browser.cookies["naka_session"]
    if not headers["sec-fetch-site"]:  # a browser without fetch metadata
        headers = {name: value for name, value in headers.items() if value}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=api.app), base_url=ORIGIN, headers=headers, cookies={"naka_session": token}
    ) as other:
        for path, how in (
            ("/v1/admin/tenants", {"json": {"slug": "forged", "name": "Forged"}}),
            ("/chat", {"json": {"message": "hello"}}),
            ("/sign-in", {"data": {"key": admin.key}}),
            ("/sign-out", {}),
        ):
            answer = await other.post(path, **how)  # type: ignore[arg-type]
            assert answer.status_code == 403, (path, answer.text)
            assert "set-cookie" not in answer.headers
    assert await api.books.fetch("SELECT FROM tenants WHERE slug = 'forged'") == []
    assert (await browser.get("/v1/admin/tenants")).status_code == 200, "still signed in"


async def test_without_fetch_metadata_the_origin_decides(api: Api, sign_in: SignIn) -> None:
    browser = await sign_in(await api.platform_admin())
    del browser.headers["sec-fetch-site"]
    made = await browser.post(
        "/v1/admin/tenants", json={"slug": f"t-{uuid4().hex[:8]}", "name": "T"}, headers={"origin": ORIGIN}
    )
    assert made.status_code == 201


async def test_a_session_is_no_key_and_a_key_goes_first(api: Api, account: Account, sign_in: SignIn) -> None:
    browser = await sign_in(account)
    token = browser.cookies["naka_session"]
    assert (await api.http.get("/v1/usage", headers={"authorization": f"Bearer {token}"})).status_code == 401
    assert (await browser.get("/v1/usage", headers={"authorization": "Bearer nk_live_x"})).status_code == 401
    admin = await api.tenant_admin()
    assert (await browser.get("/v1/admin/audit", headers=admin.headers)).status_code == 200


async def test_another_key_takes_its_place(api: Api, account: Account, sign_in: SignIn) -> None:
    browser = await sign_in(account)
    before = browser.cookies["naka_session"]
    refused = await browser.get("/account")
    assert (refused.status_code, "/sign-in?next=/account" in refused.text) == (403, True)
    admin = await api.tenant_admin()
    assert (await browser.post("/sign-in", data={"key": admin.key, "next": "/account"})).status_code == 303
    assert (await browser.get("/v1/admin/audit")).status_code == 200
    async with stranger(api) as other:
        other.cookies.set("naka_session", before)
        assert (await other.get("/v1/usage")).status_code == 401, "the session before is over"


async def test_it_ends_with_its_key(api: Api, account: Account, sign_in: SignIn) -> None:
    browser = await sign_in(account)
    await api.call(await api.platform_admin(), "DELETE", f"/keys/{account.key_id}", expect=204)
    assert (await browser.get("/v1/usage")).status_code == 401
    page = await browser.get("/")
    assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=%2F")


async def test_it_ends_with_its_time(api: Api, account: Account, sign_in: SignIn) -> None:
    browser = await sign_in(account)
    await api.books.fetch("UPDATE web_sessions SET expires_at = clock_timestamp()")
    assert (await browser.get("/v1/usage")).status_code == 401


async def test_signed_out_is_signed_out_everywhere(account: Account, sign_in: SignIn) -> None:
    browser = await sign_in(account)
    token = browser.cookies["naka_session"]
    refused = await browser.post("/chat", json={"message": ""})
    assert refused.status_code == 422, "the session is in the cache of the toll"
    answer = await browser.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert browser.cookies.get("naka_session") is None
    browser.cookies.set("naka_session", token)
    assert (await browser.get("/v1/usage")).status_code == 401
    assert (await browser.post("/chat", json={"message": ""})).status_code == 401
    assert (await browser.post("/sign-out")).status_code == 303, "asked again, nothing more happens"


@pytest.mark.parametrize(
    "key", ["", "nk_live_x", "x" * 200, "nk_test_" + "0" * 49, "ключ", "<script>alert(1)</script>"]
)
async def test_a_wrong_key_is_said_and_not_echoed(api: Api, key: str) -> None:
    async with stranger(api, address=f"203.0.113.{len(key)}") as browser:
        answer = await submit(browser, "/sign-in", {"key": key, "next": "/account"})
        assert answer.status_code == 401
        assert "This key was not accepted" in answer.text
        assert not key or key not in answer.text
        assert 'value="/account"' in answer.text
        assert list(browser.cookies) == [], "no session, and nothing left of the refusal"
        again = await browser.get(answer.url)
        assert (again.status_code, "not accepted" in again.text) == (200, False), "a reload sends no key again"


@pytest.mark.slow
async def test_wrong_keys_slow_their_address_down(api: Api, account: Account) -> None:
    wrong = {"key": account.key[:-1] + ("0" if account.key[-1] != "0" else "1")}
    address, other = f"2001:db8:{uuid4().hex[:4]}:1::1", f"2001:db8:{uuid4().hex[:4]}:1::1"
    async with stranger(api, address=address) as browser:
        for _ in range(FREE_ATTEMPTS):
            assert (await submit(browser, "/sign-in", wrong)).status_code == 401
        redis = api.app.state.runtime.redis
        (wait,) = await redis.keys("naka:door:*:wait")
        assert 0 < await redis.pttl(wait) <= 2_000
        await redis.expire(wait, 60)  # so that it is not over before a busy machine has asked
        refused = await submit(browser, "/sign-in", {"key": account.key})
        assert refused.status_code == 429, "a right key has to wait as well"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "Too many wrong keys" in refused.text
    async with stranger(api, address=address.replace("::1", "::2")) as neighbour:
        assert (await submit(neighbour, "/sign-in", {"key": account.key})).status_code == 429, "the same /64"
    async with stranger(api, address=other) as elsewhere:
        assert (await elsewhere.post("/sign-in", data={"key": account.key})).status_code == 303
    assert all([await redis.pttl(key) > 0 for key in await redis.keys("naka:door:*")])
    await redis.delete(wait)


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/account?x=1", "/account?x=1"),
        ("", "/"),
        ("//evil.example/x", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/sign-out", "/"),
    ],
)
async def test_where_one_wanted_to_go(api: Api, account: Account, wanted: str, reached: str) -> None:
    async with stranger(api) as browser:
        answer = await browser.post("/sign-in", data={"key": account.key, "next": wanted})
    assert (answer.status_code, answer.headers["location"]) == (303, reached)


async def test_back_from_another_site_the_cookie_gets_a_second_chance(api: Api) -> None:
    async with stranger(api) as browser:
        path = "/reports?from=2026-11-01&to=2026-11-02"
        answer = await browser.get(path, headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 200
        assert f'<meta http-equiv="refresh" content="0;url={escape(path)}">' in answer.text
        again = await browser.get(path)
        assert (again.status_code, again.headers["location"]) == (303, f"/sign-in?next={quote(path, safe='')}")


@pytest.mark.parametrize("path", ["/sign-in", "/"])
async def test_every_page_has_a_strict_policy(account: Account, sign_in: SignIn, path: str) -> None:
    page = await (await sign_in(account)).get(path)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", page.text)


@pytest.fixture
async def production(settings: Settings) -> AsyncIterator[Api]:
    """The application as it is deployed."""
    app = create_app(settings.model_copy(update={"naka_env": "production"}))
    async with app.router.lifespan_context(app), httpx2.AsyncClient() as http:
        books = Books(settings.database_url)
        yield Api(app, http, books)
        await books.close()


async def _link(api: Api, account: Account) -> str:
    runtime = api.app.state.runtime
    return await make_link(runtime.redis, await runtime.directory.authenticate(account.key))


async def test_a_link_signs_in_once(api: Api, account: Account, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    token = (await _link(api, account)).rpartition("/")[2]
    link = f"/sign-in/link/{token}?next=/account"
    opened = {"sec-fetch-site": "none"}
    async with stranger(api) as browser:
        ahead = await browser.get(link, headers=opened | {"sec-purpose": "prefetch"})
        assert (ahead.status_code, dict(browser.cookies)) == (503, {}), "loading it ahead does not use it up"
        assert (await browser.head(link, headers=opened)).status_code == 503
        answer = await browser.get(link, headers=opened)
        assert (answer.status_code, answer.headers["location"]) == (303, "/account")
        assert (await browser.get("/v1/usage")).status_code == 200
    assert "/sign-in/link/..." in caplog.text
    assert token not in caplog.text, "a link that was only looked at is still valid"
    async with stranger(api) as another:
        answer = await another.get(link, headers=opened)
        assert (answer.status_code, dict(another.cookies)) == (401, {})
        assert "used already" in answer.text
        assert (await another.get("/sign-in/link/made-up", headers=opened)).status_code == 401


async def test_a_link_ends_with_its_key_and_by_itself(api: Api, account: Account) -> None:
    link = await _link(api, account)
    redis = api.app.state.runtime.redis
    kept = {name: str(await redis.get(name)) for name in await redis.keys("naka:sign-in-link:*")}
    ((name, value),) = [pair for pair in kept.items() if str(account.key_id) in pair[1]]
    assert 0 < await redis.ttl(name) <= LINK_TTL_S
    assert account.key not in value
    await api.books.fetch("UPDATE api_keys SET revoked_at = now() WHERE id = $1", account.key_id)
    async with stranger(api) as browser:
        assert (await browser.get(link)).status_code == 401


async def test_production_has_no_links(production: Api) -> None:
    link = await _link(production, await production.books.account(scopes=CHAT_AND_READ))
    async with stranger(production) as browser:
        assert (await browser.get(link)).status_code == 404
        assert dict(browser.cookies) == {}
