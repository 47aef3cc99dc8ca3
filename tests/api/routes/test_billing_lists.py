"""Subscriptions and alerts over all tenants, and of one's own."""

from core.clock import now_ms
from core.ids import uuid7
from tests.api.conftest import Api
from tests.harness import Account

SUBSCRIPTION = (
    "INSERT INTO subscriptions (tenant_id, id, state, is_open, plan_code, plan_version, supply, gross_paise,"
    " total_count, created_ms, razorpay_id, short_url)"
    " VALUES ($1, $2, 'submitted', true, 'team', 1, '{}', 1, 12, 0, $3, 'https://x')"
)
ALERT = "INSERT INTO alerts (tenant_id, id, key, kind, data, at_ms, state) VALUES ($1, $2, $3, 'k', '{}', $4, 'none')"


async def items(api: Api, account: Account, path: str, **query: str) -> list[dict[str, object]]:
    """What a list answers."""
    answer = await api.http.get(f"/v1/admin/{path}", headers=account.headers, params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_an_operator_sees_all_and_an_admin_its_own(api: Api) -> None:
    operator, mine, theirs = await api.platform_admin(), await api.tenant_admin(), await api.tenant_admin()
    for admin in (mine, theirs):
        await api.books.fetch(SUBSCRIPTION, admin.tenant_id, uuid7(), f"sub_{admin.tenant_id.hex[-14:]}")
        await api.books.fetch(ALERT, admin.tenant_id, uuid7(), "a key", now_ms())
    both = {str(mine.tenant_id), str(theirs.tenant_id)}
    for path in ("subscriptions", "alerts"):
        assert both <= {str(one["tenant_id"]) for one in await items(api, operator, path)}
        assert {one["tenant_id"] for one in await items(api, mine, path)} == {str(mine.tenant_id)}
        (one,) = await items(api, operator, path, tenant_id=str(theirs.tenant_id))
        assert one["tenant_id"] == str(theirs.tenant_id)
        first = await api.http.get(f"/v1/admin/{path}?limit=1", headers=operator.headers)
        more = await items(api, operator, path, limit="1", cursor=first.json()["next"])
        assert more[0]["id"] != first.json()["items"][0]["id"]
    (subscription,) = await items(api, mine, "subscriptions")
    assert (subscription["pay_url"], subscription["checkout"]) == (None, None), "the link is its tenant's alone"
