"""A product's own JWTs on metered routes: its users, tags and limits, and what ends them on every process."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from core.tenancy.principal import Scope
from tests.core.identity.idp import AUDIENCE, ISSUER, JwksServer, claims, jwks, new_key, pem_of, serve_jwks, sign
from tests.harness import Account, Api, Books, client, scripted

ADMIN = [Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ]
KEY = new_key("ES256")
AWAY = "redis://127.0.0.1:1/0"
"""A process without Redis hears of no change, so what it caches is old."""


def jwt_of(admin: Account, key: Any = KEY, **changed: Any) -> str:
    """A JWT of the issuer of the admin's tenant."""
    return sign(key, "ES256", claims(iss=f"{ISSUER}{admin.tenant_id}", **changed))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def ask(http: httpx2.AsyncClient, token: str, **body: Any) -> tuple[int, str | None]:
    answer = await http.post("/chat", json={"message": scripted(words=3), **body}, headers=bearer(token))
    return answer.status_code, answer.json()["code"] if answer.status_code != 200 else None


async def register(http: httpx2.AsyncClient, admin: Account, **changed: Any) -> dict[str, Any]:
    new = {"issuer": f"{ISSUER}{admin.tenant_id}", "audience": AUDIENCE, "verification_keys": pem_of(KEY), **changed}
    path = f"/v1/admin/tenants/{admin.tenant_id}/issuers"
    answer = await http.post(path, json=new, headers=admin.headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_jwt_chats_as_its_user_with_its_tags(http: httpx2.AsyncClient, books: Books) -> None:
    admin = await books.account(scopes=ADMIN)
    issuer = await register(http, admin, tag_claims={"metadata.team": "team"})
    token = jwt_of(admin, metadata={"team": "search"})
    assert await ask(http, token, tags={"team": "mine", "feature": "help"}) == (200, None)
    assert await ask(http, token, user="eve") == (403, "forbidden")
    (row,) = await books.fetch(
        "SELECT r.key_id, r.tags, u.external_id FROM usage_requests r JOIN users u ON u.id = r.user_id"
        " WHERE r.tenant_id = $1",
        admin.tenant_id,
    )
    assert (str(row["key_id"]), row["external_id"]) == (issuer["key_id"], "ada@acme.example")
    assert (
        row["tags"] == '{"team": "search", "feature": "help"}' or row["tags"] == '{"feature": "help", "team": "search"}'
    )
    assert (await http.get("/v1/usage", headers=bearer(token))).json()["totals"]["requests"] == 1


@pytest.mark.slow
async def test_removing_it_or_disabling_its_user_ends_a_jwt_on_every_process(
    http: httpx2.AsyncClient, books: Books, start_api: Callable[..., Api]
) -> None:
    admin = await books.account(scopes=ADMIN)
    issuer = await register(http, admin)
    other = start_api(DIRECTORY_TTL_S="300", REDIS_URL=AWAY)
    ada, eve = (jwt_of(admin, sub=name) for name in ("ada", "eve"))
    async with client(other.url) as elsewhere:
        for each in (http, elsewhere):
            assert await ask(each, ada) == (200, None)
            assert await ask(each, eve) == (200, None)
        (row,) = await books.fetch("SELECT id FROM users WHERE external_id = 'eve' AND tenant_id = $1", admin.tenant_id)
        await books.fetch("UPDATE users SET disabled_at = now() WHERE id = $1", row["id"])
        for each in (http, elsewhere):
            assert await ask(each, eve) == (403, "user_disabled")
            assert await ask(each, ada) == (200, None)
        gone = await http.delete(f"/v1/admin/issuers/{issuer['id']}", headers=admin.headers)
        assert gone.status_code == 204
        for each in (http, elsewhere):
            assert (await ask(each, ada))[0] == 401


@pytest.mark.slow
async def test_keys_rotate_while_many_chat(http: httpx2.AsyncClient, books: Books) -> None:
    admin = await books.account(scopes=ADMIN)
    with serve_jwks() as server:
        server.body = jwks(KEY)
        await register(http, admin, verification_keys=server.url)
        keys, answers, ends_s = [KEY], list[tuple[int, str | None]](), time.monotonic() + 4

        async def chat(number: int) -> None:
            while time.monotonic() < ends_s:
                answers.append(await ask(http, jwt_of(admin, keys[-1], sub=f"user-{number % 5}")))

        chatting = [asyncio.create_task(chat(number)) for number in range(10)]
        for number in range(3):
            await asyncio.sleep(1)
            keys.append(new_key("ES256", f"rotated-{number}"))
            server.body = jwks(keys[-1])  # the old one is gone at once
        await asyncio.gather(*chatting)
        assert len(answers) > 20
        refused = [answer for answer in answers if answer != (200, None)]
        assert refused == [] or set(refused) == {(401, "unauthenticated")}, refused
        assert len(refused) <= 30, "only what was signed with a key that was gone"
        assert server.count <= 4 + len(refused)
        await last_refusals(http, admin, server, keys)
    users = await books.fetch(
        "SELECT id FROM users WHERE tenant_id = $1 AND external_id LIKE 'user-%'", admin.tenant_id
    )
    assert len(users) == 5
    settled = await books.fetch(
        "SELECT count(*) FROM usage_requests WHERE tenant_id = $1 AND state = 'settled'", admin.tenant_id
    )
    assert settled[0]["count"] == sum(answer == (200, None) for answer in answers) + 1, "and that of `last_refusals`"


async def last_refusals(http: httpx2.AsyncClient, admin: Account, server: JwksServer, keys: list[Any]) -> None:
    """A key that was removed, a key id that is invented, and a server that is away."""
    assert (await ask(http, jwt_of(admin, keys[0])))[0] == 401
    server.status = 503
    assert (await ask(http, jwt_of(admin, new_key("ES256", "invented"))))[0] in (429, 503)
    assert await ask(http, jwt_of(admin, keys[-1], sub="user-1")) == (200, None), "the keys that are known last"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["huge", "slow", "redirect"])
async def test_a_hostile_jwks_is_a_503_and_delays_nobody(http: httpx2.AsyncClient, books: Books, fault: str) -> None:
    admin, plain = await books.account(scopes=ADMIN), await books.account()
    with serve_jwks() as server, serve_jwks() as inside:
        inside.body = jwks(KEY)
        match fault:
            case "huge":
                server.body = jwks(KEY) + b" " * 70_000
            case "slow":
                server.delay_s = 8
            case _:
                server.status, server.location = 307, inside.url
        await register(http, admin, verification_keys=server.url, audience=fault)
        asked = [asyncio.create_task(ask(http, jwt_of(admin, aud=fault))) for _ in range(20)]
        await asyncio.sleep(0.2)
        answer = await http.post("/chat", json={"message": scripted(words=3)}, headers=plain.headers)
        assert answer.status_code == 200
        if fault == "slow":
            assert not any(task.done() for task in asked), "the other request did not wait for them"
        assert set(await asyncio.gather(*asked)) == {(503, "unavailable")}
        assert server.count == 1
        assert inside.count == 0
