"""Tag keys over HTTP, and reports and lists by tag."""

import csv
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest

from core.clock import now_ms
from core.ids import uuid7
from tests.api.conftest import Api
from tests.harness import Account
from tests.metering.rows import today
from tests.rollups import fill_rollups


async def asked(api: Api, account: Account, tags: str | None, keys: list[str] | None, *, tokens: int = 1) -> str:
    """A settled request with these tags, in the rows and in all rollups."""
    request_id = uuid7(now_ms())
    await api.books.fetch(
        "INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, outcome, model, opened_at, day, period_id,"
        " requests, output_tokens, tags, tag_keys)"
        " VALUES ($1, $2, $3, $4, 'settled', 'completed', 'm', now(), $5, 'p', 1, $6, $7, $8)",
        account.tenant_id,
        request_id,
        account.user_id,
        account.key_id,
        today(),
        tokens,
        tags,
        keys,
    )
    await api.books.fetch(
        "INSERT INTO usage_daily AS t (tenant_id, user_id, day, period_id, key_id, model, requests, output_tokens)"
        " VALUES ($1, $2, $3, 'p', $4, 'm', 1, $5) ON CONFLICT (tenant_id, user_id, day, period_id, key_id, model)"
        " DO UPDATE SET requests = t.requests + 1, output_tokens = t.output_tokens + excluded.output_tokens",
        account.tenant_id,
        account.user_id,
        today(),
        account.key_id,
        tokens,
    )
    await fill_rollups(api.books)
    return str(request_id)


async def tagging_admin(api: Api) -> Account:
    """A tenant's admin after three requests, two with a feature."""
    admin = await api.tenant_admin()
    await asked(api, admin, '{"feature": "search", "conversation": "c-1"}', ["conversation", "feature"], tokens=10)
    await asked(api, admin, '{"feature": "=1+1"}', ["feature"], tokens=20)
    await asked(api, admin, None, None, tokens=30)
    await asked(api, await api.books.account(), '{"feature": "theirs"}', ["feature"], tokens=1000)
    return admin


@pytest.fixture
async def admin(api: Api) -> Account:
    """The same."""
    return await tagging_admin(api)


async def test_keys_are_declared_changed_and_removed(api: Api) -> None:
    admin = await api.tenant_admin()
    path = f"/tenants/{admin.tenant_id}/tag-keys"
    usual = {"key": "conversation", "max_values": 10_000, "values_today": 0, "overflowed": None}
    assert (await api.call(admin, "GET", path, expect=200)).json()["items"] == [usual]
    made = await api.call(admin, "PUT", f"{path}/feature", json={}, expect=200)
    assert made.json() == {"key": "feature", "max_values": 1000, "values_today": 0, "overflowed": None}
    await api.books.fetch(
        "INSERT INTO tag_values VALUES ($1, 'feature', $2, 'a'), ($1, 'feature', $3, 'b'), ($1, 'feature', $3, '')",
        admin.tenant_id,
        today(),
        today() - timedelta(days=3),
    )
    changed = await api.call(admin, "PUT", f"{path}/feature", json={"max_values": 7}, expect=200)
    day = str(today() - timedelta(days=3))
    assert changed.json() == {"key": "feature", "max_values": 7, "values_today": 1, "overflowed": day}
    await api.call(admin, "DELETE", f"{path}/conversation", expect=204)
    await api.call(admin, "DELETE", f"{path}/conversation", expect=404)
    left = (await api.call(admin, "GET", path, expect=200)).json()["items"]
    assert [item["key"] for item in left] == ["feature"]
    assert (await api.audit(admin.tenant_id)) == ["tag_key.declare", "tag_key.declare", "tag_key.remove"]
    for key, body in (("Feature", {}), ("nk:token", {}), ("f", {"max_values": 0}), ("f", {"max_values": 100_001})):
        await api.call(admin, "PUT", f"{path}/{key}", json=body, expect=422)
    for number in range(15):
        await api.call(admin, "PUT", f"{path}/k{number}", json={}, expect=200)
    refused = await api.call(admin, "PUT", f"{path}/one-more", json={}, expect=422)
    assert "at most 16" in refused.json()["detail"]


async def test_a_removed_key_is_forgotten_by_the_process_and_can_be_declared_again(api: Api) -> None:
    admin = await api.tenant_admin()
    resolver, path = api.app.state.runtime.metering.tags, f"/tenants/{admin.tenant_id}/tag-keys/feature"
    assert "feature" not in await resolver._declared(admin.tenant_id)
    await api.call(admin, "PUT", path, json={"max_values": 3}, expect=200)
    assert (await resolver._declared(admin.tenant_id))["feature"].most == 3
    await api.call(admin, "DELETE", path, expect=204)
    assert "feature" not in await resolver._declared(admin.tenant_id)
    await api.call(admin, "PUT", path, json={"max_values": 4}, expect=200)
    assert (await resolver._declared(admin.tenant_id))["feature"].most == 4


@pytest.mark.slow
async def test_a_report_by_feature_adds_up_as_json_and_csv(api: Api, admin: Account) -> None:
    async def report(**query: str) -> list[dict[str, Any]]:
        found = await api.call(admin, "GET", "/reports/usage", params=query, expect=200)
        items: list[dict[str, Any]] = found.json()["items"]
        return items

    by_feature = await report(group_by="tag:feature")
    assert [(row["tag"], row["output_tokens"]) for row in by_feature] == [("=1+1", 20), ("search", 10), (None, 30)]
    assert sum(row["output_tokens"] for row in by_feature) == (await report(group_by=""))[0]["output_tokens"]
    assert [(row["tag"], row["day"]) for row in await report(group_by="tag:conversation,day", order="tokens")] == [
        (None, str(today())),
        ("c-1", str(today())),
    ]
    assert [row["output_tokens"] for row in await report(group_by="day", tag="feature=search")] == [10]
    text = (await api.call(admin, "GET", "/reports/usage?group_by=tag:feature&format=csv", expect=200)).text
    rows = list(csv.DictReader(StringIO(text.removeprefix("\ufeff"))))
    assert [(row["tag"], row["output_tokens"]) for row in rows] == [("'=1+1", "20"), ("search", "10"), ("", "30")]
    for query in ("group_by=tag:feature,user", "group_by=tag:Feature", "group_by=model&tag=feature=x", "tag=feature"):
        await api.call(admin, "GET", f"/reports/usage?{query}", expect=422)
    operator = await api.platform_admin()
    every = await api.call(operator, "GET", "/reports/usage?group_by=tag:feature,tenant&names=true", expect=200)
    assert {(row["tag"], row["output_tokens"]) for row in every.json()["items"]} >= {("theirs", 1000), ("search", 10)}


@pytest.mark.slow
async def test_requests_are_listed_with_their_tags_and_by_one(api: Api, admin: Account) -> None:
    query = {"tag": "feature=search"}
    (found,) = (await api.call(admin, "GET", "/requests", params=query, expect=200)).json()["items"]
    assert found["tags"] == {"feature": "search", "conversation": "c-1"}
    text = (await api.call(admin, "GET", "/requests", params={"format": "csv"}, expect=200)).text
    rows = list(csv.DictReader(StringIO(text.removeprefix("\ufeff"))))
    assert [row["tags"] for row in rows] == ["", "feature==1+1", "conversation=c-1,feature=search"]
