"""Keys over HTTP: shown once, never a way up, ended at once."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from core.clock import now_ms, to_ms
from core.ids import uuid7
from core.settings import Settings
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.harness import Account


async def make(api: Api, admin: Account, user_id: object, *, expect: int = 201, **body: Any) -> dict[str, Any]:
    made = await api.call(admin, "POST", f"/users/{user_id}/keys", json={"name": "k", **body}, expect=expect)
    answer: dict[str, Any] = made.json()
    return answer


async def works(api: Api, key: str) -> bool:
    answer = await api.http.get("/v1/usage", headers={"x-api-key": key})
    assert answer.status_code in (200, 401)
    return bool(answer.status_code == 200)


async def test_a_key_is_shown_once(api: Api) -> None:
    admin = await api.tenant_admin()
    made = await make(api, admin, admin.user_id)
    assert made["key"].startswith("nk_test_")
    assert made["key"].startswith(made["prefix"])
    assert made["scopes"] == ["chat", "usage:read"]
    assert await works(api, made["key"])
    listed = await api.call(admin, "GET", f"/users/{admin.user_id}/keys", expect=200)
    assert made["key"] not in listed.text
    assert "hash" not in listed.text
    shown = {name: value for name, value in made.items() if name != "key"}
    assert listed.json()["items"][-1] == shown
    audit = await api.books.fetch("SELECT row_to_json(a)::text AS row FROM audit_log a")
    assert not any(made["key"] in row["row"] for row in audit)
    assert await api.audit(admin.tenant_id) == ["key.create"]


async def test_a_key_can_be_bound(api: Api) -> None:
    admin = await api.tenant_admin()
    bound: dict[str, Any] = {
        "models": ["claude-sonnet-4-6"],
        "expires_at": "2031-01-01T00:00:00+05:30",
        "scopes": ["chat", "chat"],
    }
    made = await make(api, admin, admin.user_id, **bound)
    assert made["scopes"] == ["chat"]
    assert made["models"] == ["claude-sonnet-4-6"]
    assert made["expires_at"] == "2030-12-31T18:30:00Z"


@pytest.mark.parametrize(
    "body",
    [
        {"expires_at": "2021-01-01T00:00:00Z"},
        {"expires_at": "2031-01-01T00:00:00"},
        {"expires_at": "2031-01-01"},
        {"expires_at": 1_924_992_000},
        {"expires_at": "1924992000"},
        {"expires_at": "2101-01-01T00:00:00Z"},
        {"expires_at": "9999-12-31T23:59:59-14:00"},
        {"models": ["no-such-model"]},
        {"models": []},
        {"models": ["claude-sonnet-4-6"] * 101},
        {"scopes": []},
        {"scopes": ["root"]},
        {"name": "a\tb"},
        {"live": True},
    ],
)
async def test_a_bad_key_is_refused(api: Api, body: dict[str, Any]) -> None:
    admin = await api.tenant_admin()
    await make(api, admin, admin.user_id, expect=422, **body)
    assert await api.audit(admin.tenant_id) == []


@pytest.mark.slow
async def test_nobody_climbs_by_way_of_a_key(api: Api) -> None:
    admin = await api.tenant_admin()
    root = await api.books.account(scopes=[Scope.PLATFORM_ADMIN, Scope.CHAT], tenant_id=admin.tenant_id)
    for user in (admin.user_id, root.user_id, uuid7()):
        await make(api, admin, user, expect=403, scopes=["chat", "platform:admin"])
    await api.call(admin, "POST", f"/keys/{root.key_id}/rotate", json={"overlap_s": 60}, expect=403)
    await api.call(admin, "DELETE", f"/keys/{root.key_id}", expect=403)
    assert await api.audit(admin.tenant_id) == []

    another = await make(api, admin, admin.user_id, scopes=["tenant:admin"])
    assert another["scopes"] == ["tenant:admin"]
    above = await make(api, root, root.user_id, scopes=["platform:admin"])
    assert above["scopes"] == ["platform:admin"]


@pytest.mark.slow
async def test_a_derived_key_is_bounded_and_ends_with_its_tree(api: Api) -> None:
    admin = await api.tenant_admin()
    bounds: dict[str, Any] = {"models": ["claude-sonnet-4-6"], "expires_at": "2031-01-01T00:00:00Z"}
    mother = await make(api, admin, admin.user_id, scopes=["tenant:admin"], **bounds)
    derived = Account(admin.tenant_id, admin.user_id, UUID(mother["id"]), mother["key"])
    beyond: list[dict[str, Any]] = [{"scopes": ["chat"]}, {"models": ["claude-haiku-4-5"]}]
    for more in (*beyond, {"expires_at": "2031-01-02T00:00:00Z"}):
        refused = await make(api, derived, admin.user_id, expect=403, **{"scopes": ["tenant:admin"]} | more)
        assert refused["code"] == "forbidden"
    await make(api, derived, admin.user_id, expect=403)  # the scopes by default are not this key's
    child = await make(api, derived, admin.user_id, scopes=["tenant:admin"])
    assert {name: child[name] for name in bounds} == bounds
    assert (mother["parent_key_id"], child["parent_key_id"]) == (str(admin.key_id), mother["id"])
    await api.call(derived, "POST", f"/keys/{admin.key_id}/rotate", json={"overlap_s": 60}, expect=403)
    await api.call(admin, "DELETE", f"/keys/{mother['id']}", expect=204)
    assert (await api.http.get("/v1/admin/audit", headers={"x-api-key": child["key"]})).status_code == 200
    await api.call(admin, "DELETE", f"/keys/{mother['id']}?descendants=true", expect=204)
    assert not await works(api, child["key"])
    assert await api.audit(admin.tenant_id) == ["key.create", "key.create", "key.revoke", "key.revoke"]


async def test_ending_a_key_is_at_once_and_idempotent(api: Api) -> None:
    admin = await api.tenant_admin()
    made = await make(api, admin, admin.user_id)
    for _ in range(2):
        answer = await api.call(admin, "DELETE", f"/keys/{made['id']}", expect=204)
        assert answer.content == b""
    assert not await works(api, made["key"])
    assert await api.audit(admin.tenant_id) == ["key.create", "key.revoke"]
    await api.call(admin, "POST", f"/keys/{made['id']}/rotate", json={"overlap_s": 5}, expect=422)


@pytest.mark.slow
async def test_a_rotated_key_has_a_successor_and_an_end(api: Api) -> None:
    admin = await api.tenant_admin()
    old = await make(api, admin, admin.user_id, scopes=["usage:read"], models=["claude-sonnet-4-6"])
    began = now_ms()
    new = (await api.call(admin, "POST", f"/keys/{old['id']}/rotate", json={"overlap_s": 60}, expect=201)).json()
    ended = now_ms()
    assert {new[name] == old[name] for name in ("id", "key", "prefix")} == {False}
    assert all(new[name] == old[name] for name in ("name", "scopes", "models", "user_id", "expires_at"))
    assert await works(api, old["key"])
    assert await works(api, new["key"])
    (row,) = await api.books.fetch("SELECT expires_at FROM api_keys WHERE id = $1", UUID(old["id"]))
    assert began + 60_000 <= to_ms(row["expires_at"]) <= ended + 60_000
    await api.books.fetch("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1", UUID(old["id"]))
    assert not await works(api, old["key"])
    at_once = await api.call(admin, "POST", f"/keys/{new['id']}/rotate", json={"overlap_s": 0}, expect=201)
    assert not await works(api, new["key"])
    assert await works(api, at_once.json()["key"])
    for wrong in (-1, 30 * 86_400 + 1, 1.5, "1", True):
        await api.call(admin, "POST", f"/keys/{old['id']}/rotate", json={"overlap_s": wrong}, expect=422)


async def test_one_of_many_rotations_at_once_wins(api: Api) -> None:
    admin = await api.tenant_admin()
    made = await make(api, admin, admin.user_id)
    answers = await asyncio.gather(
        *(api.call(admin, "POST", f"/keys/{made['id']}/rotate", json={"overlap_s": 0}) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 422, 422, 422, 422]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    production = "production" in request.node.name
    return settings.model_copy(update={"naka_env": "production"}) if production else settings


async def test_a_key_made_in_production_is_live(api: Api) -> None:
    admin = await api.tenant_admin()
    assert (await make(api, admin, admin.user_id))["key"].startswith("nk_live_")
