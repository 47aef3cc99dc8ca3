"""A person is exported whole, and erased: the books stay, the person goes."""

import asyncio
from typing import Any

import asyncpg
import pytest

from api.schemas.accounts.privacy import Exported
from api.services.accounts.privacy import export_user
from api.services.context import ServiceContext
from core.errors import NotFound
from core.tenancy.audit import Actor
from core.tenancy.principal import Forbidden, Principal, Scope
from tests.api.conftest import Api
from tests.api.routes.test_admin_walk import settled
from tests.harness import Account
from tests.pages.conftest import SAME_ORIGIN

NAME, KEY_NAME, ADDRESS = "ada@acme.example", "laptop of ada", "192.0.2.77"
EVERYWHERE = """
SELECT string_agg(row, ' ') FROM (
    SELECT u::text AS row FROM users u UNION ALL SELECT k::text FROM api_keys k
    UNION ALL SELECT s::text FROM web_sessions s UNION ALL SELECT a::text FROM audit_log a
) AS rows
"""
WAITS_FOR_ME = "SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"


async def person(api: Api, admin: Account) -> tuple[dict[str, Any], dict[str, Any]]:
    """A user with a key, who signed in, failed once, used something."""
    path = f"/tenants/{admin.tenant_id}/users"
    user = (await api.call(admin, "POST", path, json={"external_id": NAME}, expect=201)).json()
    made = await api.call(admin, "POST", f"/users/{user['id']}/keys", json={"name": KEY_NAME}, expect=201)
    key = made.json()
    api.http._transport.client = (ADDRESS, 1)  # type: ignore[attr-defined]
    signed_in = await api.http.post("/sign-in", data={"key": key["key"]}, headers=SAME_ORIGIN)
    assert signed_in.status_code == 303
    api.http.cookies.clear()
    wrong = key["key"][:-1] + "~"
    assert (await api.http.get("/v1/usage", headers={"x-api-key": wrong})).status_code == 401
    await settled(api, Account(admin.tenant_id, user["id"], key["id"], key["key"]))
    traces = api.app.state.runtime.directory.activity_log
    traces._failures_due_ms = 0  # not only once a minute
    async with api.books.connection() as connection:
        await traces.write(connection)
    return user, key


async def everywhere(api: Api) -> str:
    """All that tenancy has, as one text."""
    (row,) = await api.books.fetch(EVERYWHERE)
    return str(row[0])


async def test_an_export_has_everything_and_nothing_that_authenticates(api: Api) -> None:
    admin = await api.tenant_admin()
    user, key = await person(api, admin)
    answer = await api.call(admin, "GET", f"/users/{user['id']}/export", expect=200)
    assert answer.headers["cache-control"] == "no-store"
    known = answer.json()
    Exported.model_validate(known)  # as it is described
    assert (known["user"]["external_id"], known["user"]["erased_at"]) == (NAME, None)
    assert [(one["name"], one["prefix"]) for one in known["keys"]] == [(KEY_NAME, key["prefix"])]
    assert known["keys"][0]["last_used_at"] is not None
    assert len(known["sessions"]) == len(known["requests"]) == 1
    assert known["requests"][0]["output_tokens"] == 1000
    actions = ["user.create", "key.create", "session.begin", "user.export"]
    assert [entry["action"] for entry in known["audit"]] == actions
    assert key["key"] not in answer.text
    assert '"hash"' not in answer.text


async def test_erasing_takes_the_person_and_leaves_the_books(api: Api) -> None:
    admin = await api.tenant_admin()
    user, key = await person(api, admin)
    other, _ = await person(api, await api.tenant_admin())
    found = await everywhere(api)
    assert [found.count(each) > 1 for each in (NAME, KEY_NAME, ADDRESS, key["prefix"])] == [True] * 4
    await api.call(admin, "DELETE", f"/keys/{key['id']}", expect=204)

    first = (await api.call(admin, "POST", f"/users/{user['id']}/erase", expect=200)).json()
    again = (await api.call(admin, "POST", f"/users/{user['id']}/erase", expect=200)).json()
    assert first["external_id"].startswith("erased-")
    assert again == {"external_id": first["external_id"], "again": True}

    assert (await api.http.get("/v1/usage", headers={"x-api-key": key["key"]})).status_code == 401
    assert [
        row["ended_at"] is None
        for row in await api.books.fetch("SELECT ended_at FROM web_sessions WHERE key_id::text = $1", key["id"])
    ] == [False]
    refused = await api.call(admin, "POST", f"/users/{user['id']}/keys", json={"name": "k"}, expect=422)
    assert refused.json()["detail"] == "this user was erased"
    mine = await api.call(admin, "GET", f"/users/{user['id']}/export", expect=200)
    known = await api.call(admin, "GET", f"/audit?tenant_id={admin.tenant_id}", expect=200)
    for text in (mine.text, known.text):
        assert not [each for each in (NAME, KEY_NAME, ADDRESS, key["prefix"]) if each in text]
    assert [one["output_tokens"] for one in mine.json()["requests"]] == [1000], "the books stay"
    assert [entry["action"] for entry in mine.json()["audit"]] == [
        *("user.create", "key.create", "session.begin", "key.revoke", "user.erase", "user.export"),
    ]
    left = await api.books.fetch(
        "SELECT target, after->>'keys' AS keys FROM audit_log WHERE action = 'key.refused' ORDER BY target"
    )
    assert [key["prefix"] in (row["keys"] or "") for row in left] == [False, False]
    assert [row["target"] for row in left] == [f"address:{ADDRESS}", "address:erased"]
    kept = await api.call(await api.platform_admin(), "GET", f"/users/{other['id']}/export", expect=200)
    assert kept.json()["user"]["external_id"] == NAME, "nobody else's"
    assert ADDRESS in kept.text


@pytest.mark.slow
async def test_tags_of_an_erased_users_requests_go_but_for_those_that_are_added_up(api: Api) -> None:
    admin = await api.tenant_admin()
    (user, _), (other, _) = await person(api, admin), await person(api, await api.tenant_admin())
    tags = '{"feature": "search", "customer": "ada@acme.example", "nk:token": "t-1"}'
    await api.books.fetch("UPDATE usage_requests SET tags = $1, tag_keys = '{feature}'", tags)
    before = (await api.call(admin, "GET", f"/users/{user['id']}/export", expect=200)).json()
    assert before["requests"][0]["tags"]["customer"] == "ada@acme.example"
    await api.books.fetch("SELECT naka_erase_tags(tenant_id, id) FROM users")  # nobody is erased yet
    await api.call(admin, "POST", f"/users/{user['id']}/erase", expect=200)
    after = (await api.call(admin, "GET", f"/users/{user['id']}/export", expect=200)).json()
    assert after["requests"][0]["tags"] == {"feature": "search", "nk:token": "t-1"}
    kept = await api.call(await api.platform_admin(), "GET", f"/users/{other['id']}/export", expect=200)
    assert kept.json()["requests"][0]["tags"]["customer"] == "ada@acme.example", "nobody else's"


@pytest.mark.slow
async def test_an_erasure_that_collides_with_a_settlement_is_tried_again(api: Api) -> None:
    admin = await api.tenant_admin()
    user, key = await person(api, admin)
    await settled(api, Account(admin.tenant_id, user["id"], key["id"], key["key"]))
    await api.books.fetch("UPDATE usage_requests SET tags = $1", '{"customer": "ada@acme.example"}')
    last, first = await api.books.fetch("SELECT id FROM usage_requests ORDER BY ctid DESC")
    lock = "SELECT FROM usage_requests WHERE id = $1 FOR UPDATE"
    async with api.books.connection() as settlement, asyncio.timeout(30):
        await settlement.execute("BEGIN")
        await settlement.execute("SET LOCAL deadlock_timeout = '20s'")  # the erasure loses
        await settlement.fetch(lock, last["id"])
        erasing = asyncio.create_task(api.call(admin, "POST", f"/users/{user['id']}/erase", expect=200))
        while not await settlement.fetch(WAITS_FOR_ME):  # noqa: ASYNC110 - Postgres tells nobody
            await asyncio.sleep(0.01)
        await settlement.fetch(lock, first["id"])
        await settlement.execute("COMMIT")
        await erasing
    assert await api.books.fetch("SELECT FROM usage_requests WHERE tags IS NOT NULL") == []


async def test_only_an_erased_user_leaves_the_audit_log(api: Api) -> None:
    admin = await api.tenant_admin()
    user, _ = await person(api, admin)
    before = await everywhere(api)
    async with api.books.connection() as connection:
        with pytest.raises(asyncpg.RaiseError, match="erased user"):
            await connection.execute("SELECT erase_from_audit($1, $2)", admin.tenant_id, user["id"])
    assert await everywhere(api) == before


async def test_a_tenants_admin_erases_its_own_and_no_operator(api: Api) -> None:
    admin, stranger = await api.tenant_admin(), await api.tenant_admin()
    await api.call(admin, "POST", f"/users/{stranger.user_id}/erase", expect=404)
    await api.call(admin, "GET", f"/users/{stranger.user_id}/export", expect=404)
    root = await api.books.account(scopes=[Scope.PLATFORM_ADMIN], tenant_id=admin.tenant_id)
    await api.call(admin, "POST", f"/users/{root.user_id}/erase", expect=403)
    assert (await api.http.get("/v1/admin/plans", headers=root.headers)).status_code == 200


async def test_the_service_itself_refuses_an_export_that_the_caller_may_not_have(api: Api) -> None:
    admin, stranger = await api.tenant_admin(), await api.tenant_admin()
    runtime = api.app.state.runtime

    def context(*scopes: Scope) -> ServiceContext:
        return ServiceContext(
            settings=runtime.settings,
            database=runtime.database,
            changes=runtime.changes,
            actor=Actor(f"key:{admin.key_id}", admin.key_id),
            principal=Principal(admin.tenant_id, admin.user_id, admin.key_id, frozenset(scopes)),
        )

    with pytest.raises(NotFound):
        await anext(export_user(context(Scope.TENANT_ADMIN), stranger.user_id))
    with pytest.raises(Forbidden):
        await anext(export_user(context(Scope.CHAT, Scope.USAGE_READ), admin.user_id))
    assert await api.books.fetch("SELECT 1 FROM audit_log WHERE action = 'user.export'") == []
    pieces = [piece async for piece in export_user(context(Scope.TENANT_ADMIN), admin.user_id)]
    assert str(admin.user_id) in pieces[0]
    assert len(await api.books.fetch("SELECT 1 FROM audit_log WHERE action = 'user.export'")) == 1
