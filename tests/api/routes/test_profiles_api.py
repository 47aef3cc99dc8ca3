"""Who may see and set the parties of bills."""

from typing import Any, cast

from api.schemas.billing.profiles import OperatorBody, ProfileBody
from tests.api.conftest import Api
from tests.harness import Account

CUSTOMER = cast("Any", ProfileBody.model_config)["json_schema_extra"]["examples"][0]
OPERATOR = cast("Any", OperatorBody.model_config)["json_schema_extra"]["examples"][0]


def _path(account: Account) -> str:
    return f"/tenants/{account.tenant_id}/billing-profile"


async def test_a_tenants_admin_sets_its_own_and_no_others(api: Api) -> None:
    mine, other = await api.tenant_admin(), await api.tenant_admin()
    assert (await api.call(mine, "GET", _path(mine), expect=200)).json() is None
    kept = (await api.call(mine, "PUT", _path(mine), expect=200, json=CUSTOMER)).json()
    assert (await api.http.get("/v1/billing/profile", headers=mine.headers)).json() == kept
    await api.call(mine, "GET", _path(other), expect=404)
    await api.call(mine, "PUT", _path(other), expect=404, json=CUSTOMER)
    assert (await api.http.get("/v1/billing/profile", headers=other.headers)).json() is None
    assert await api.audit(mine.tenant_id) == ["billing.profile"]
    reads = await api.books.fetch(
        "SELECT tenant_id, actor_key_id, after->>'what' AS what FROM audit_log WHERE action = 'payer.read'"
    )
    assert {tuple(row) for row in reads} >= {(mine.tenant_id, mine.key_id, "profile")}
    assert (await api.call(await api.platform_admin(), "GET", _path(mine), expect=200)).json() == kept


async def test_the_operators_is_the_operators(api: Api) -> None:
    tenant, platform = await api.tenant_admin(), await api.platform_admin()
    await api.call(tenant, "GET", "/operator", expect=403)
    await api.call(tenant, "PUT", "/operator", expect=403, json=OPERATOR)
    assert (await api.call(platform, "GET", "/operator", expect=200)).json() is None
    kept = (await api.call(platform, "PUT", "/operator", expect=200, json=OPERATOR)).json()
    assert (await api.call(platform, "GET", "/operator", expect=200)).json() == kept
    answer = await api.call(platform, "PUT", "/operator", expect=422, json=OPERATOR | {"state": "27"})
    assert "another state" in answer.text
    assert (await api.call(platform, "GET", "/operator", expect=200)).json() == kept
