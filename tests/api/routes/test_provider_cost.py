"""The provider's cost is the operator's: a tenant sees it nowhere, unless SHOW_PROVIDER_COST says so."""

import csv
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest

from core.settings import Settings
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.api.conftest import Api
from tests.api.routes.test_admin_reports import asked, used
from tests.harness import Account
from tests.metering.rows import today

BUDGET = LimitSet((Limit(Meter.SPEND, WindowKind.DAY, 4_000_000), Limit(Meter.TOKENS, WindowKind.DAY, 1_000)))
ROUTES = (
    "/v1/usage",
    "/v1/admin/requests",
    "/v1/admin/reports/usage",
    "/v1/admin/reports/usage?group_by=model,user&names=true",
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """An installation as it comes."""
    return settings.model_copy(update={"show_provider_cost": False})


def costs(found: Any) -> set[Any]:
    """Every value of `cost_nano_usd` at any depth."""
    if isinstance(found, list):
        return set().union(*map(costs, found))
    if not isinstance(found, dict):
        return set()
    own = {found["cost_nano_usd"]} if "cost_nano_usd" in found else set()
    return own.union(*map(costs, found.values()))


async def read(api: Api, account: Account, path: str) -> Any:
    answer = await api.http.get(path, headers=account.headers)
    assert answer.status_code == 200, f"{path}: {answer.text}"
    return answer.json()


async def test_a_tenant_sees_no_cost_and_the_operator_does(api: Api) -> None:
    admin, operator = await api.tenant_admin(), await api.platform_admin()
    await used(api, admin, today(), "m")
    request_id = await asked(api, admin, datetime.now(UTC))
    for path in (*ROUTES, f"/v1/usage/requests/{request_id}", f"/v1/admin/users/{admin.user_id}/export"):
        assert costs(await read(api, admin, path)) == {None}, path
    for path in ROUTES[1:]:
        assert None not in costs(
            await read(api, operator, f"{path}{'&' if '?' in path else '?'}tenant_id={admin.tenant_id}")
        )
    answer = await api.call(admin, "GET", "/reports/usage", params={"order": "cost_nano_usd"}, expect=422)
    assert "not shown" in answer.json()["detail"]


async def test_csv_keeps_the_column_and_leaves_it_empty(api: Api) -> None:
    admin = await api.tenant_admin()
    await used(api, admin, today(), "m")
    await asked(api, admin, datetime.now(UTC))
    for path in ("/reports/usage", "/requests"):
        answer = await api.call(admin, "GET", path, params={"format": "csv"}, expect=200)
        (row,) = csv.DictReader(StringIO(answer.text.removeprefix("\ufeff")))
        assert row["cost_nano_usd"] == ""
        assert row["requests"] == "1"


@pytest.mark.slow
async def test_a_budget_is_a_percentage(api: Api) -> None:
    account = await api.books.account(limits=BUDGET)
    spend, tokens = (await read(api, account, "/v1/limits"))["windows"]
    assert (spend["meter"], spend["limit"], spend["used"], spend["remaining"], spend["used_percent"]) == (
        *("spend", None, None, None),
        0,
    )
    assert (tokens["limit"], tokens["remaining"], tokens["used_percent"]) == (1_000, 1_000, 0)
