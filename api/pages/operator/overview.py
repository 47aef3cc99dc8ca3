"""Is everything well? What a person has to look at comes first; then this month's money."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep
from api.pages.operator.frame import Said, show
from api.pages.route import page_router
from api.pages.site import number, usd
from api.pages.visitor import Operator
from api.runtime import Runtime
from billing.gst.rupees import rupees
from billing.invoicing.report_prices import billed
from billing.models import Bill, BillingFinding, Payment, Refund
from billing.webhooks.inbox import InboxGauges, read_inbox_gauges
from core.clock import now_ms
from metering.quota.windows import day_start_ms
from metering.reports.gauges import Gauges, read_gauges
from metering.reports.usage_report import UsageReport

router = page_router("/operator")
_LATE_S = 300
_OLD_S = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Light:
    """One thing that is well, or is not: `tone` is empty, `warn` or `bad`."""

    figure: str
    words: str
    href: str | None = None
    tone: str = ""


@router.get("")
async def overview(request: Request, runtime: RuntimeDep, visitor: Operator, said: Said = "") -> Response:
    """At a glance."""
    today = runtime.calendar.date_of(now_ms())
    async with runtime.pool.acquire() as connection:
        gauges = await read_gauges(connection, dead_after_s=runtime.settings.dead_after_s)
        inbox = await read_inbox_gauges(connection)
    async with runtime.database.session() as session:
        waiting = await _waiting(session)
        money = await _money(session, runtime, today)
    lights = [*_lights(gauges, inbox), *waiting]
    lights.sort(key=lambda light: ("bad", "warn", "").index(light.tone))
    return show(request, "overview", visitor, said, lights=lights, money=money, month=today.replace(day=1))


def _lights(gauges: Gauges, inbox: InboxGauges) -> list[Light]:
    checked = gauges.age_s is not None and gauges.age_s < _OLD_S
    return [
        Light(
            number(inbox.parked), "webhooks parked", "/operator/webhooks?state=parked", "bad" if inbox.parked else ""
        ),
        Light(
            number(inbox.received),
            f"webhooks waiting, the oldest for {int(inbox.lag_s)} s",
            "/operator/webhooks?state=received",
            "warn" if inbox.lag_s > _LATE_S else "",
        ),
        Light(
            "–" if gauges.drifts is None else number(gauges.drifts),  # noqa: RUF001 - never checked yet
            _checked(gauges, recently=checked),
            "/operator/reconciliation",
            "bad" if gauges.drifts else "" if checked else "warn",
        ),
        Light(
            number(gauges.overdue_requests),
            "requests past their deadline and not settled",
            None,
            "warn" if gauges.overdue_requests else "",
        ),
        Light(number(gauges.open_requests), "requests running"),
        Light(number(gauges.living_processes), "processes serving", None, "" if gauges.living_processes else "bad"),
    ]


def _checked(gauges: Gauges, *, recently: bool) -> str:
    if gauges.age_s is None:
        return "the books were not checked yet: a worker does it each night"
    return "drifts in the last check of the books" + ("" if recently else ", which is two days old")


async def _waiting(session: AsyncSession) -> list[Light]:
    """What waits for a person's word."""
    held = await _count(session, Bill.id, Bill.state == "held")
    asked = await _count(session, Refund.id, Refund.state == "awaiting_operator")
    open_ = await _count(session, BillingFinding.key, BillingFinding.closed_ms.is_(None))
    refunds = "/operator/refunds?state=awaiting_operator"
    return [
        Light(number(held), "bills held until you look", "/operator/bills?state=held", "warn" if held else ""),
        Light(
            number(asked),
            "refunds that want your word",
            refunds,
            "warn" if asked else "",
        ),
        Light(number(open_), "findings about money", "/operator/findings", "warn" if open_ else ""),
    ]


async def _count(session: AsyncSession, column: Any, condition: Any) -> int:
    return int(await session.scalar(select(func.count(column)).where(condition)) or 0)


async def _money(session: AsyncSession, runtime: Runtime, today: date) -> list[tuple[str, str]]:
    """Of this month; what is open, of all time."""
    first = today.replace(day=1)
    bills = sum((await billed(session, runtime.calendar.zone, first, today)).values())
    since_ms = day_start_ms(first, runtime.calendar.zone)
    captured = select(func.coalesce(func.sum(Payment.amount_paise), 0)).where(Payment.captured_ms >= since_ms)
    due = func.greatest(Bill.total_paise - Bill.credited_paise - Bill.paid_paise, 0)
    open_ = select(func.coalesce(func.sum(due), 0)).where(Bill.state == "open")
    (used,) = (await session.execute(UsageReport(first, today).query())).mappings().all()
    return [
        (rupees(bills), "billed this month, before GST"),
        (rupees(int(await session.scalar(captured) or 0)), "collected this month, with GST"),
        (rupees(int(await session.scalar(open_) or 0)), "open, with GST"),
        (usd(int(used["cost_nano_usd"])), "provider cost this month"),
        (number(int(used["requests"])), "requests this month"),
    ]
