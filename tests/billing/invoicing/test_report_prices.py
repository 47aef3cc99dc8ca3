"""The money of reports: what usage is worth by its period's own terms, and what bills really asked for."""

import json
from datetime import timedelta
from zoneinfo import ZoneInfo

from billing.invoicing.report_prices import billed, paise_of, period_rates
from core.clock import now_ms, to_datetime
from metering.reports.usage_report import PRICE, UsageReport
from tests.billing.office import PERIOD, RUPEE_A_TOKEN, Office

ZONE = ZoneInfo("Asia/Kolkata")


async def test_usage_is_worth_what_the_terms_of_its_period_say(office: Office) -> None:
    """As billing stores them; a period that has none yet goes by the plan of today. The allowance is no part of it."""
    tenant_id = await office.used(7)
    await office.use(tenant_id, "2026-11", output_tokens=3)
    day = to_datetime(now_ms()).date()
    async with office.context.tenant_transaction(tenant_id) as session:
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
            assert paise_of(int(row[PRICE])) == 100_700 + 600, "a rupee a token, then two; of an unknown period, none"


async def test_what_was_billed_is_final_bills_less_their_credit_notes(office: Office) -> None:
    tenant_id, other = await office.used(7), await office.used(11)
    await office.close()
    await office.use(tenant_id, PERIOD, output_tokens=5)
    await office.close()  # a supplement
    await office.use(tenant_id, PERIOD, output_tokens=-3)
    await office.close()  # a credit note
    unknown = await office.tenant(is_known=False)
    await office.period(unknown, PERIOD)
    await office.use(unknown, PERIOD, output_tokens=1_013)
    await office.close()
    assert [bill.state for bill in await office.bills(unknown)] == ["held"], "and so it is not final"

    today = to_datetime(now_ms()).astimezone(ZONE).date()
    async with office.context.database.session() as session:
        week = (today - timedelta(days=7), today)
        assert await billed(session, ZONE, *week) == {tenant_id: 700 + 500 - 300, other: 1_100}
        assert await billed(session, ZONE, *week, tenant_id=other) == {other: 1_100}
        assert await billed(session, ZONE, today - timedelta(days=7), today - timedelta(days=2)) == {}
        assert await billed(session, ZONE, today + timedelta(days=2), today + timedelta(days=7)) == {}
