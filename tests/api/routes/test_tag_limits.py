"""Limits of tags over HTTP: set, listed with what is used, shown to who asks with the tag, removed."""

from typing import Any

import pytest

from core.settings import Settings
from tests.api.conftest import Api
from tests.harness import Account
from tests.metering.budgeted import limit_tag

DAY = {"meter": "tokens", "window": "day", "limit": 500}
SPEND = {"meter": "spend", "window": "period", "limit": 5_000_000}
BODY: dict[str, Any] = {"key": "feature", "value": "search", "limits": [DAY, SPEND]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A tenant does not see the provider's cost."""
    return settings.model_copy(update={"show_provider_cost": False})


async def declared(api: Api) -> tuple[Account, str]:
    """An admin whose tenant declares `feature`, and the path of its tag limits."""
    admin = await api.tenant_admin()
    await api.books.fetch("INSERT INTO tag_keys (tenant_id, key) VALUES ($1, 'feature')", admin.tenant_id)
    return admin, f"/tenants/{admin.tenant_id}/tag-limits"


async def use(api: Api, admin: Account, output_tokens: int, cost_nano_usd: int) -> None:
    await api.books.fetch(
        "INSERT INTO usage_by_tag (tenant_id, tag_key, tag_value, day, period_id, shard, requests, output_tokens,"
        " cost_nano_usd) SELECT $1, 'feature', 'search', day, to_char(day, 'YYYY-MM'), 0, 1, $2, $3"
        " FROM (SELECT (now() AT TIME ZONE 'Asia/Kolkata')::date AS day) AS today",
        admin.tenant_id,
        output_tokens,
        cost_nano_usd,
    )


async def test_a_tags_limits_are_set_shown_replaced_and_removed(api: Api) -> None:
    admin, path = await declared(api)
    await use(api, admin, 120, 1_000_000)
    put = (await api.call(admin, "PUT", path, json=BODY | {"value": " search "}, expect=200)).json()
    (tokens, spend) = put["limits"]
    assert (put["key"], put["value"]) == ("feature", "search")
    assert (tokens["limit"], tokens["used"], tokens["held"], tokens["remaining"]) == (500, 120, 0, 380)
    assert (tokens["used_percent"], spend["used_percent"], spend["limit"]) == (24, 0, 5_000_000)
    assert (spend["used"], spend["remaining"]) == (None, None)  # a tenant does not see the provider's cost
    operator = await api.platform_admin()
    (item,) = (await api.call(operator, "GET", path, expect=200)).json()["items"]
    assert [one["used"] for one in item["limits"]] == [120, 1_000]

    own = (await api.http.get("/v1/limits", headers=admin.headers | {"Naka-Tags": "feature=search"})).json()
    shown = [(one["scope"], one["meter"], one["window"], one["used"], one["tag"]) for one in own["windows"][-2:]]
    tag = {"key": "feature", "value": "search"}
    assert shown == [("tag", "tokens", "day", 120, tag), ("tag", "spend", "period", None, tag)]
    for others in ({"Naka-Tags": "feature=chat"}, {"Naka-Tags": "conversation=c-1"}, {}):
        windows = (await api.http.get("/v1/limits", headers=admin.headers | others)).json()["windows"]
        assert not [one for one in windows if one["scope"] == "tag"]
    bad = await api.http.get("/v1/limits", headers=admin.headers | {"Naka-Tags": "Feature=search"})
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_request")

    replaced = (await api.call(admin, "PUT", path, json=BODY | {"limits": [DAY | {"limit": 0}]}, expect=200)).json()
    assert [one["limit"] for one in replaced["limits"]] == [0]
    tag_of_query = {"key": "feature", "value": "search"}
    await api.call(admin, "DELETE", path, params=tag_of_query, expect=204)
    await api.call(admin, "DELETE", path, params=tag_of_query, expect=404)
    assert (await api.call(admin, "GET", path, expect=200)).json() == {"items": [], "next": None}
    assert await api.audit(admin.tenant_id) == ["tag_limits.replace", "tag_limits.replace", "tag_limits.remove"]


@pytest.mark.slow
async def test_tags_with_limits_are_listed_in_pages(api: Api) -> None:
    admin, path = await declared(api)
    await api.books.fetch("INSERT INTO tag_keys (tenant_id, key) VALUES ($1, 'team')", admin.tenant_id)
    tags = [("feature", f"a={number}") for number in range(5)] + [("team", "é, ü"), ("team", "x")]
    for key, value in tags:
        await api.call(admin, "PUT", path, json={"key": key, "value": value, "limits": [DAY]}, expect=200)
    found: list[tuple[str, str]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = (await api.call(admin, "GET", path, params={"limit": 2, **cursor}, expect=200)).json()
        found += [(item["key"], item["value"]) for item in answer["items"]]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert sorted(found) == sorted(tags)
    of_team = (await api.call(admin, "GET", path, params={"key": "team"}, expect=200)).json()["items"]
    assert {item["value"] for item in of_team} == {"é, ü", "x"}
    await api.call(admin, "GET", path, params={"cursor": "nothing"}, expect=422)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "team"},
        {"key": "nk:token"},
        {"key": "Feature"},
        {"value": ""},
        {"value": "  "},
        {"value": "x" * 201},
        {"value": "a\nb"},
        {"limits": []},
        {"limits": [DAY, DAY]},
        {"limits": [DAY | {"window": "life"}]},
        {"limits": [DAY | {"limit": -1}]},
        {"more": 1},
    ],
)
async def test_bad_limits_of_a_tag_are_refused_and_nothing_is_stored(api: Api, change: dict[str, Any]) -> None:
    admin, path = await declared(api)
    await api.call(admin, "PUT", path, json=BODY | change, expect=422)
    assert await api.books.fetch("SELECT FROM tag_limits WHERE tenant_id = $1", admin.tenant_id) == []
    assert await api.audit(admin.tenant_id) == []


async def test_a_withdrawn_key_takes_no_limits(api: Api) -> None:
    admin, path = await declared(api)
    await api.books.fetch("UPDATE tag_keys SET removed_at = now() WHERE tenant_id = $1", admin.tenant_id)
    refused = await api.call(admin, "PUT", path, json=BODY, expect=422)
    assert "declare the key `feature` first" in refused.json()["detail"]


async def test_no_admin_reaches_the_tag_limits_of_another_tenant(api: Api) -> None:
    admin, path = await declared(api)
    await limit_tag(api.books, admin)
    other = await api.tenant_admin()
    for method, how in (
        ("GET", {}),
        ("PUT", {"json": BODY}),
        ("DELETE", {"params": {"key": "feature", "value": "search"}}),
    ):
        await api.call(other, method, path, expect=404, **how)
        await api.call(None, method, path, expect=401, **how)
        reader = await api.books.account(tenant_id=admin.tenant_id)
        await api.call(reader, method, path, expect=403, **how)
    assert len(await api.books.fetch("SELECT FROM tag_limits WHERE tenant_id = $1", admin.tenant_id)) == 1
