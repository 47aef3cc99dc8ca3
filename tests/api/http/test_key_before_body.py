"""Bodies are read from authenticated callers only, and bounded in total; with the application in this process.

Each body counts the bytes read from it: unread bytes use no memory.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.settings import Settings
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.harness import Account

MAX_BYTES = 4096
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A total of three bodies of the maximum size, of which a tenant gets two, and of one for routes without a key."""
    small = {"request_body_max_bytes": MAX_BYTES, "request_bodies_max_bytes": 3 * MAX_BYTES}
    return settings.model_copy(update=small)


class Sent:
    """A body sent in parts that pauses in the middle."""

    def __init__(self, start: bytes = b"{", rest: bytes = b"}") -> None:
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self._start = start
        self._rest = rest

    async def parts(self) -> AsyncIterator[bytes]:
        """Yields the parts."""
        self.started.set()
        yield self._start
        await self.may_end.wait()
        yield self._rest


def declared(size: int, headers: dict[str, str]) -> dict[str, str]:
    return headers | {"content-length": str(size)}


async def test_nothing_is_read_from_who_has_no_good_key(api: Api) -> None:
    account = await api.books.account(scopes=[Scope.TENANT_ADMIN])
    wrong = {"authorization": f"Bearer {account.key[:-1]}"}
    session = {"cookie": "naka_session=" + "A" * 43}
    json_type, html = "application/problem+json", "text/html; charset=utf-8"
    for path, headers, content_type in (
        ("/v1/admin/tenants", JSON, json_type),
        ("/v1/admin/tenants", JSON | wrong, json_type),
        ("/v1/billing/profile", JSON | session | FORM, json_type),
        ("/chat", JSON, json_type),
        ("/account/keys", FORM, html),
        ("/account/keys", FORM | session, html),
        ("/operator/tenants", FORM, html),
    ):
        for framing in ({"content-length": "1000"}, {"transfer-encoding": "chunked"}):
            body = Sent()
            method = "PUT" if "profile" in path else "POST"
            answer = await api.http.request(method, path, content=body.parts(), headers=headers | framing)
            assert (answer.status_code, answer.headers["content-type"]) == (401, content_type), (path, answer.text)
            assert not body.started.is_set(), path


async def test_a_revoked_key_does_not_pass_by_the_cache(api: Api) -> None:
    account = await api.books.account(scopes=[Scope.PLATFORM_ADMIN])
    body = Sent(b'{"slug": "late", ', b'"name": "Late"}')
    asked = asyncio.create_task(
        api.http.post("/v1/admin/tenants", content=body.parts(), headers=JSON | account.headers)
    )
    await body.started.wait()
    await api.books.fetch("UPDATE api_keys SET revoked_at = now() WHERE id = $1", account.key_id)
    body.may_end.set()

    assert (await asked).status_code == 401
    assert not await api.books.fetch("SELECT FROM tenants WHERE slug = 'late'")


async def test_all_bodies_together_are_bounded(api: Api) -> None:
    account = await api.books.account(scopes=[Scope.PLATFORM_ADMIN])
    bodies = [Sent(), Sent(b"x" * MAX_BYTES)]
    held = [
        asyncio.create_task(_post(api, account, bodies[0], {"content-length": str(MAX_BYTES)})),
        asyncio.create_task(_post(api, account, bodies[1], {"transfer-encoding": "chunked"})),
    ]
    for body in bodies:
        await body.started.wait()
    await asyncio.sleep(0.05)  # until the first part was counted

    over = Sent()
    refused = await _post(api, account, over, {"content-length": "2"})
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "unavailable", "1")
    assert not over.started.is_set()
    webhook = await api.http.post("/webhooks/razorpay", content=b"{}", headers=JSON)
    assert webhook.status_code == 401, "what needs no key has a bound of its own"
    other = await api.books.account(scopes=[Scope.PLATFORM_ADMIN])
    fits = await api.call(other, "POST", "/tenants", json={"slug": "other", "name": "Other"})
    assert fits.status_code == 201, "a tenant has a share of its own"
    whole = [Sent(), Sent()]
    last = asyncio.create_task(_post(api, other, whole[0], {"content-length": str(MAX_BYTES)}))
    await whole[0].started.wait()
    assert (await _post(api, other, whole[1], {"content-length": "2"})).status_code == 503, "nothing is left"
    whole[0].may_end.set()
    assert (await last).status_code == 422

    for body in bodies:
        body.may_end.set()
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [422, 413]
    assert (await api.call(account, "POST", "/tenants", json={"slug": "fits", "name": "Fits"})).status_code == 201


async def test_bodies_without_a_key_are_bounded_apart(api: Api) -> None:
    body = Sent()
    unfinished = asyncio.create_task(
        api.http.post("/webhooks/razorpay", content=body.parts(), headers=declared(MAX_BYTES, JSON))
    )
    await body.started.wait()

    assert (await api.http.post("/webhooks/razorpay", content=b"{}", headers=JSON)).status_code == 503
    assert (await api.http.post("/sign-in", content=b"key=a", headers=FORM)).status_code == 503
    account = await api.books.account(scopes=[Scope.PLATFORM_ADMIN])
    assert (await api.call(account, "POST", "/tenants", json={"slug": "fits", "name": "Fits"})).status_code == 201

    body.may_end.set()
    assert (await unfinished).status_code == 401
    assert (await api.http.post("/webhooks/razorpay", content=b"{}", headers=JSON)).status_code == 401
    assert (await api.http.post("/sign-in", content=b"key=" + b"a" * 5000, headers=FORM)).status_code == 413


async def _post(api: Api, account: Account, body: Sent, framing: dict[str, str]) -> Any:
    headers = JSON | account.headers | framing
    return await api.http.post("/v1/admin/tenants", content=body.parts(), headers=headers)
