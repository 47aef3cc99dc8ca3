"""Limits and prices over HTTP."""

from typing import Any

import pytest

from metering.quota.limits import MAX_LIMIT
from tests.api.conftest import Api

SET = {"limits": [{"meter": "tokens", "window": "day", "limit": 0}, {"meter": "spend", "window": "period", "limit": 7}]}
BAND = {
    "over_prompt_tokens": 0,
    "input_rate": 1,
    "output_rate": 2,
    "cache_read_rate": 3,
    "cache_write_5m_rate": 4,
    "cache_write_1h_rate": 5,
}
PRICE = {"model": "claude-next", "effective_from": "2031-01-01T00:00:00Z", "bands": [BAND]}


@pytest.mark.slow
async def test_a_users_limits_are_replaced_and_hold(api: Api) -> None:
    admin = await api.tenant_admin()
    user = await api.books.account(tenant_id=admin.tenant_id)
    path = f"/users/{user.user_id}/limits"
    nothing: dict[str, Any] = {"limits": [], "concurrency": None, "source": "default"}
    assert (await api.call(admin, "GET", path, expect=200)).json() == nothing
    put = await api.call(admin, "PUT", path, json=SET | {"concurrency": 3}, expect=200)
    assert put.json() == SET | {"concurrency": 3, "source": "set"}
    assert (await api.call(admin, "GET", path, expect=200)).json() == put.json()
    held = (await api.http.get("/v1/limits", headers=user.headers)).json()
    assert [(window["meter"], window["limit"]) for window in held["windows"]] == [("tokens", 0), ("spend", 7)]
    assert held["concurrency"]["limit"] == 3

    await api.call(admin, "PUT", path, json={"limits": []}, expect=200)
    assert (await api.http.get("/v1/limits", headers=user.headers)).json()["windows"] == []
    assert await api.audit(admin.tenant_id) == ["limits.replace", "limits.replace"]


@pytest.mark.slow
async def test_a_plans_limits_hold_where_none_are_set(api: Api) -> None:
    operator, admin = await api.platform_admin(), await api.tenant_admin()
    plan = {"code": "team", "name": "Team", "user": SET, "tenant": {"limits": [], "concurrency": 9}}
    await api.call(operator, "POST", "/plans", json=plan, expect=201)
    await api.call(operator, "PUT", f"/tenants/{admin.tenant_id}/plan", json={"code": "team"}, expect=200)
    user = (await api.call(admin, "GET", f"/users/{admin.user_id}/limits", expect=200)).json()
    tenant = (await api.call(admin, "GET", f"/tenants/{admin.tenant_id}/limits", expect=200)).json()
    assert user == SET | {"concurrency": None, "source": "plan"}
    assert tenant == {"limits": [], "concurrency": 9, "source": "plan"}


async def test_only_the_operator_sets_a_tenants_own_limits(api: Api) -> None:
    operator, admin = await api.platform_admin(), await api.tenant_admin()
    path = f"/tenants/{admin.tenant_id}/limits"
    await api.call(admin, "PUT", path, json=SET, expect=403)
    put = await api.call(operator, "PUT", path, json=SET, expect=200)
    assert (await api.call(admin, "GET", path, expect=200)).json() == put.json()


@pytest.mark.parametrize(
    ("limit", "concurrency"),
    [
        ({"limit": -1}, None),
        ({"limit": MAX_LIMIT + 1}, None),
        ({"limit": 2**63}, None),
        ({"limit": 1.5}, None),
        ({"limit": "1"}, None),
        ({"limit": True}, None),
        ({"limit": None}, None),
        ({"meter": "paise"}, None),
        ({"window": "year"}, None),
        ({"more": 1}, None),
        ({}, -1),
        ({}, 2**31),
        ({}, False),
    ],
)
async def test_a_bad_limit_is_refused(api: Api, limit: dict[str, Any], concurrency: object) -> None:
    admin = await api.tenant_admin()
    body = {"limits": [{"meter": "tokens", "window": "day", "limit": 1} | limit], "concurrency": concurrency}
    await api.call(admin, "PUT", f"/users/{admin.user_id}/limits", json=body, expect=422)


@pytest.mark.slow
async def test_a_meter_has_one_limit_in_a_window(api: Api) -> None:
    admin = await api.tenant_admin()
    body = {"limits": [{"meter": "tokens", "window": "day", "limit": number} for number in (1, 2)]}
    await api.call(admin, "PUT", f"/users/{admin.user_id}/limits", json=body, expect=422)


@pytest.mark.slow
async def test_the_largest_limit_is_taken_whole(api: Api) -> None:
    admin = await api.tenant_admin()
    body = {"limits": [{"meter": "spend", "window": "day", "limit": MAX_LIMIT}]}
    put = await api.call(admin, "PUT", f"/users/{admin.user_id}/limits", json=body, expect=200)
    assert put.json()["limits"][0]["limit"] == MAX_LIMIT
    held = (await api.http.get("/v1/limits", headers=(await api.books.account()).headers)).json()
    assert held["windows"] == []


async def test_a_price_is_added_listed_and_withdrawn(api: Api) -> None:
    operator = await api.platform_admin()
    made = (await api.call(operator, "POST", "/prices", json=PRICE, expect=201)).json()
    assert made == PRICE | {"id": made["id"], "factors": {}, "web_search_rate": 10_000_000}
    await api.call(operator, "POST", "/prices", json=PRICE, expect=409)
    seen: list[dict[str, Any]] = []
    cursor = None
    while cursor or not seen:
        query = {"limit": "5"} | ({"cursor": cursor} if cursor else {})
        page = (await api.call(operator, "GET", "/prices", params=query, expect=200)).json()
        seen, cursor = seen + page["items"], page["next"]
    assert made in seen
    assert next(item for item in seen if item["model"] == "claude-opus-5-5")["factors"] == {
        "speed:fast": 2000,
        "inference_geo:us": 1100,
        "service_tier:batch": 500,
    }
    assert len({item["id"] for item in seen}) == len(seen) == 23
    await api.call(operator, "DELETE", f"/prices/{made['id']}", expect=204)
    await api.call(operator, "DELETE", f"/prices/{made['id']}", expect=404)
    in_force = next(item for item in seen if item["model"] == "claude-sonnet-4-6")
    await api.call(operator, "DELETE", f"/prices/{in_force['id']}", expect=422)
    rows = await api.books.fetch("SELECT action FROM audit_log WHERE action LIKE 'price.%' ORDER BY id")
    assert [row["action"] for row in rows] == ["price.add", "price.withdraw"]


@pytest.mark.parametrize(
    "bands",
    [
        [],
        [BAND | {"over_prompt_tokens": 1}],
        [BAND, BAND],
        [BAND, BAND | {"over_prompt_tokens": 5}, BAND | {"over_prompt_tokens": 4}],
        [BAND | {"input_rate": -1}],
        [BAND | {"output_rate": 2**53}],
        [BAND | {"input_rate": 0.5}],
        [{"over_prompt_tokens": 0}],
    ],
)
async def test_a_bad_price_is_refused(api: Api, bands: list[dict[str, Any]]) -> None:
    operator = await api.platform_admin()
    await api.call(operator, "POST", "/prices", json=PRICE | {"bands": bands}, expect=422)


@pytest.mark.slow
async def test_a_price_has_modifiers_and_a_rate_for_searches(api: Api) -> None:
    operator = await api.platform_admin()
    body = PRICE | {"factors": {"speed:fast": 2500, "inference_geo:mars": 1}, "web_search_rate": 7}
    made = (await api.call(operator, "POST", "/prices", json=body, expect=201)).json()
    assert made == body | {"id": made["id"]}
    listed = (await api.call(operator, "GET", "/prices", params={"limit": "100"}, expect=200)).json()["items"]
    assert made in listed
    (row,) = await api.books.fetch("SELECT after FROM audit_log WHERE action = 'price.add'")
    assert '"speed:fast": 2500' in row["after"]


@pytest.mark.parametrize(
    "extra",
    [
        {"factors": {"fast": 2000}},
        {"factors": {"speed:standard": 2000}},
        {"factors": {"colour:red": 2000}},
        {"factors": {"speed:fast": 0}},
        {"factors": {"speed:fast": 1.1}},
        {"factors": {"speed:fast": 10**9}},
        {"factors": {f"speed:v{number}": 1 for number in range(21)}},
        {"web_search_rate": -1},
        {"web_search_rate": None},
    ],
)
async def test_a_bad_modifier_is_refused_and_stores_nothing(api: Api, extra: dict[str, Any]) -> None:
    operator = await api.platform_admin()
    await api.call(operator, "POST", "/prices", json=PRICE | extra, expect=422)
    assert await api.books.fetch("SELECT 1 FROM prices WHERE model = 'claude-next'") == []
