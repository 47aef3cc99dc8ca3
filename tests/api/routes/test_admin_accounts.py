"""Tenants, users and plans over HTTP."""

import pytest

from core.ids import uuid7
from tests.api.conftest import Api

TEAM = {"code": "team", "name": "Team", "user": {"limits": [{"meter": "tokens", "window": "day", "limit": 10}]}}


async def test_a_tenant_is_made_listed_and_shown(api: Api) -> None:
    operator = await api.platform_admin()
    await api.call(operator, "POST", "/plans", json=TEAM, expect=201)
    made = (
        await api.call(operator, "POST", "/tenants", json={"slug": "acme", "name": "Acme", "plan": "team"}, expect=201)
    ).json()
    assert made["plan"] == {"code": "team", "version": 1}
    shown = (await api.call(operator, "GET", f"/tenants/{made['id']}", expect=200)).json()
    assert shown == made
    listed = (await api.call(operator, "GET", "/tenants", expect=200)).json()
    assert made in listed["items"]
    actions = await api.books.fetch("SELECT action FROM audit_log WHERE tenant_id::text = $1 ORDER BY id", made["id"])
    assert [row["action"] for row in actions] == ["tenant.create", "tenant.plan"]


async def test_a_taken_slug_or_a_missing_plan_leaves_nothing(api: Api) -> None:
    operator = await api.platform_admin()
    await api.call(operator, "POST", "/tenants", json={"slug": "acme", "name": "Acme"}, expect=201)
    await api.call(operator, "POST", "/tenants", json={"slug": "acme", "name": "Other"}, expect=409)
    await api.call(operator, "POST", "/tenants", json={"slug": "beta", "name": "Beta", "plan": "none"}, expect=404)
    rows = await api.books.fetch("SELECT name FROM tenants WHERE slug IN ('acme', 'beta')")
    assert [row["name"] for row in rows] == ["Acme"]


@pytest.mark.parametrize(
    "body",
    [
        {"slug": "Acme", "name": "x"},
        {"slug": "-a", "name": "x"},
        {"slug": "a-", "name": "x"},
        {"slug": "a" * 64, "name": "x"},
        {"slug": "a\n", "name": "x"},
        {"slug": "a", "name": ""},
        {"slug": "a", "name": " x"},
        {"slug": "a", "name": "x "},
        {"slug": "a", "name": "x\u0000y"},
        {"slug": "a", "name": "x\u0085y"},
        {"slug": "a", "name": "x" * 201},
        {"slug": "a", "name": 5},
        {"slug": "a", "name": "x", "id": "1"},
        {"slug": "a"},
        [],
        None,
    ],
)
async def test_a_bad_tenant_is_refused(api: Api, body: object) -> None:
    operator = await api.platform_admin()
    answer = await api.call(operator, "POST", "/tenants", json=body, expect=422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(await api.books.fetch("SELECT FROM tenants")) == 1


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"slug": "a", "name": "\\ud800"}', b"[" * 100_000, b"NaN", b""])
async def test_what_is_no_json_is_refused(api: Api, content: bytes) -> None:
    operator = await api.platform_admin()
    json = {"content-type": "application/json", **operator.headers}
    answer = await api.http.post("/v1/admin/tenants", content=content, headers=json)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_list_has_pages(api: Api) -> None:
    admin = await api.tenant_admin()
    users = f"/tenants/{admin.tenant_id}/users"
    names = [f"user {number}" for number in range(5)]
    for name in names:
        await api.call(admin, "POST", users, json={"external_id": name}, expect=201)
    seen, cursor, pages = [], None, 0
    while cursor or not pages:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        answer = (await api.call(admin, "GET", users, params=query, expect=200)).json()
        seen += [item["external_id"] for item in answer["items"]]
        cursor, pages = answer["next"], pages + 1
    assert seen[1:] == names
    assert pages == 3
    for size in ("0", "201", "x"):
        await api.call(admin, "GET", users, params={"limit": size}, expect=422)


async def test_a_tenants_admin_sees_its_own_tenant_only(api: Api) -> None:
    admin, _ = await api.tenant_admin(), await api.tenant_admin()
    listed = (await api.call(admin, "GET", "/tenants", expect=200)).json()
    assert [item["id"] for item in listed["items"]] == [str(admin.tenant_id)]
    await api.call(admin, "POST", "/tenants", json={"slug": "mine", "name": "Mine"}, expect=403)


async def test_a_users_external_id_is_unique_in_its_tenant(api: Api) -> None:
    admin, other = await api.tenant_admin(), await api.tenant_admin()
    body = {"external_id": "ada"}
    made = (await api.call(admin, "POST", f"/tenants/{admin.tenant_id}/users", json=body, expect=201)).json()
    await api.call(admin, "POST", f"/tenants/{admin.tenant_id}/users", json=body, expect=409)
    await api.call(other, "POST", f"/tenants/{other.tenant_id}/users", json=body, expect=201)
    assert (await api.call(admin, "GET", f"/users/{made['id']}", expect=200)).json() == made
    assert await api.audit(admin.tenant_id) == ["user.create"]


async def test_plans_have_versions_and_a_tenant_stays_on_its_own(api: Api) -> None:
    operator, customer = await api.platform_admin(), await api.books.account()
    await api.call(operator, "POST", "/plans", json=TEAM, expect=201)
    path = f"/tenants/{customer.tenant_id}/plan"
    await api.call(operator, "PUT", path, json={"code": "team"}, expect=200)
    second = (await api.call(operator, "POST", "/plans", json=TEAM | {"name": "Team 2"}, expect=201)).json()
    assert (second["version"], second["tenant"]) == (2, {"limits": [], "concurrency": None})
    shown = (await api.call(operator, "GET", f"/tenants/{customer.tenant_id}", expect=200)).json()
    assert shown["plan"] == {"code": "team", "version": 1}
    moved = (await api.call(operator, "PUT", path, json={"code": "team"}, expect=200)).json()
    assert moved["plan"] == {"code": "team", "version": 2}
    await api.call(operator, "PUT", path, json={"code": "team", "version": 3}, expect=404)
    await api.call(operator, "PUT", f"/tenants/{uuid7()}/plan", json={"code": "team"}, expect=404)

    first = (await api.call(operator, "GET", "/plans", params={"limit": "1"}, expect=200)).json()
    assert first["next"] == "team@1"
    rest = (await api.call(operator, "GET", "/plans", params={"cursor": first["next"]}, expect=200)).json()
    assert [item["version"] for item in rest["items"]] == [2]
    assert rest["next"] is None


async def test_the_audit_log_says_who_did_what(api: Api) -> None:
    operator, admin = await api.platform_admin(), await api.tenant_admin()
    made = await api.call(admin, "POST", f"/tenants/{admin.tenant_id}/users", json={"external_id": "ada"}, expect=201)
    await api.call(operator, "POST", "/plans", json=TEAM, expect=201)
    newest = (await api.call(admin, "GET", "/audit", params={"limit": "1"}, expect=200)).json()["items"][0]
    assert newest["action"] == "user.create"
    assert newest["actor_key_id"] == str(admin.key_id)
    assert newest["request_id"] == made.headers["x-request-id"]
    assert newest["target"] == f"user:{made.json()['id']}"
    assert newest["after"] == {"external_id": "ada"}
    every = (await api.call(operator, "GET", "/audit", expect=200)).json()["items"]
    assert (every[0]["action"], every[0]["tenant_id"]) == ("plan.publish", None)
    theirs = {"tenant_id": str(admin.tenant_id)}
    only = (await api.call(operator, "GET", "/audit", params=theirs, expect=200)).json()["items"]
    assert {item["tenant_id"] for item in only} == {str(admin.tenant_id)}
