"""Prices in reports: usage by its period's terms, and billed amounts."""

import json
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from billing.invoicing.report_prices import billed_by_tenant, paise_of, period_rates
from core.clock import now_ms, to_datetime
from metering.reports.usage_report import RATED, UsageReport
from tests.billing.operator import PERIOD, RUPEE_A_TOKEN, OperatorSetup

ZONE = ZoneInfo("Asia/Kolkata")


async def test_usage_is_worth_what_the_terms_of_its_period_say(setup: OperatorSetup) -> None:
    """Rates by the period's terms, else by the current plan. Allowances are ignored."""
    tenant_id = await setup.tenant_with_usage(7)
    await setup.add_usage(tenant_id, "2026-11", output_tokens=3)
    day = to_datetime(now_ms()).date()
    async with setup.context.tenant_transaction(tenant_id) as session:
        connection = await session.connection()
        await connection.exec_driver_sql(
            "INSERT INTO usage_by_day (tenant_id, day, period_id, model, shard, output_tokens)"
            " VALUES ($1, $2, $3, 'm', 0, 1007), ($1, $2, '2026-11', 'm', 0, 3), ($1, $2, 'unknown', 'm', 0, 5)",
            (tenant_id, day, PERIOD),
        )
        meters = [{"meter": "output_tokens", "allowance": 9, "rate_paise": 2 * RUPEE_A_TOKEN}]
        await connection.exec_driver_sql(
            "INSERT INTO plans (code, version, name, limits, meters) VALUES ('dear', 1, 'Dear', '{}', $1)",
            (json.dumps(meters),),
        )
        await connection.exec_driver_sql(
            "UPDATE tenants SET plan_code = 'dear', plan_version = 1 WHERE id = $1", (tenant_id,)
        )
        for rates in (period_rates(tenant_id), period_rates()):
            row = (await session.execute(UsageReport(day, day, tenant_id=tenant_id).query(rates))).mappings().one()
            assert paise_of(int(row[RATED])) == 100_700 + 600, "a rupee a token, then two; of an unknown period, none"


@pytest.mark.slow
async def test_what_was_billed_is_final_bills_less_their_credit_notes(setup: OperatorSetup) -> None:
    tenant_id, other = await setup.tenant_with_usage(7), await setup.tenant_with_usage(11)
    await setup.close()
    await setup.add_usage(tenant_id, PERIOD, output_tokens=5)
    await setup.close()  # a supplement
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-3)
    await setup.close()  # a credit note
    unknown = await setup.tenant(is_known=False)
    await setup.period(unknown, PERIOD)
    await setup.add_usage(unknown, PERIOD, output_tokens=1_013)
    await setup.close()
    assert [bill.state for bill in await setup.bills(unknown)] == ["held"], "and so it is not final"

    today = to_datetime(now_ms()).astimezone(ZONE).date()
    async with setup.context.database.session() as session:
        week = (today - timedelta(days=7), today)
        assert await billed_by_tenant(session, ZONE, *week) == {tenant_id: 700 + 500 - 300, other: 1_100}
        assert await billed_by_tenant(session, ZONE, *week, tenant_id=other) == {other: 1_100}
        assert await billed_by_tenant(session, ZONE, today - timedelta(days=7), today - timedelta(days=2)) == {}
        assert await billed_by_tenant(session, ZONE, today + timedelta(days=2), today + timedelta(days=7)) == {}
