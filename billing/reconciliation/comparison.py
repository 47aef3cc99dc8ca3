"""A run of the comparison: the result is stored also when the run stops half-way.

Razorpay or Postgres down: what was compared stays compared, and the next run continues with the days that weren't.
"""

from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import BillingContext
from billing.findings import record_finding, resolve_finding
from billing.models import BillingFinding, RazorpayReconciliation
from billing.razorpay.errors import RazorpayError
from billing.reconciliation.charges import compare_charges, compare_links, compare_qr_codes
from billing.reconciliation.mandates import compare_mandates
from billing.reconciliation.payments import compare_payments, compare_refunds
from billing.reconciliation.report import RazorpayReport, for_each
from billing.reconciliation.subscriptions import compare_subscriptions
from billing.reconciliation.windows import Window, as_one, compared_since, in_order, mark_compared, windows
from core.clock import DAY_MS, now_ms
from core.errors import NakaError, Unavailable
from core.ids import uuid7
from core.logs import get_logger

WINDOW_DAYS = 60
_UNEXPLAINED = "unexplained"

log = get_logger(__name__)


async def reconcile_razorpay(
    context: BillingContext, *, days: int = WINDOW_DAYS, found: RazorpayReport | None = None
) -> RazorpayReport:
    """Compares subscriptions, mandates, charges, payments and refunds, repairs differences, and stores the result.

    `found` is filled while it runs: it tells how far a run came that raises. Raises RazorpayError, Unavailable.
    """
    found = RazorpayReport() if found is None else found
    since_ms = now_ms() - days * DAY_MS
    span = windows(since_ms, now_ms())
    found.days = len(span)
    try:
        async with context.database.session() as session:
            found.open_findings |= await _open_findings(session)
            compared = await compared_since(session, span)
        await compare_subscriptions(context, found, since_ms)
        await compare_mandates(context, found)
        await compare_charges(context, found, since_ms)
        await _compare_days(context, found, await _divided(context, span, compared))
        await compare_refunds(context, found)
    except (RazorpayError, NakaError) as error:
        found.stopped = str(error)
        log.warning("razorpay_comparison_stopped", days=found.days_compared, of=found.days, error=str(error))
        with suppress(Unavailable):  # Postgres may be what is down
            await _store(context, found)
        raise
    await _store(context, found)
    log.info("razorpay_reconciled", healed=len(found.healed), unexplained=len(found.unexplained))
    return found


async def _divided(context: BillingContext, days: list[Window], compared_ms: dict[int, int]) -> list[Window]:
    """The days one by one, or all at once where a page holds their payments and another their links."""
    (whole,) = as_one(days)
    is_small = await context.razorpay.fits_a_page(since=whole.since, until=whole.until)
    return [whole] if is_small else in_order(days, compared_ms)


async def _compare_days(context: BillingContext, found: RazorpayReport, spans: list[Window]) -> None:
    async def compare(span: Window) -> None:
        await compare_links(context, found, span)
        await compare_qr_codes(context, found, span)
        await compare_payments(context, found, span)
        async with context.database.session() as session:
            await mark_compared(session, span, now_ms())
        found.days_compared += len(span.days)

    await for_each(spans, compare)


async def _open_findings(session: AsyncSession) -> set[str]:
    """Keys of the unexplained differences that no run and no operator has closed."""
    query = select(BillingFinding.key).where(BillingFinding.kind == _UNEXPLAINED, BillingFinding.closed_ms.is_(None))
    return set(await session.scalars(query))


async def _store(context: BillingContext, found: RazorpayReport) -> None:
    """Stores the run, records what is unexplained, and closes what is explained now."""
    async with context.database.session() as session:
        session.add(
            RazorpayReconciliation(
                id=uuid7(),
                ran_ms=now_ms(),
                healed=len(found.healed),
                unexplained=len(found.unexplained),
                report=found.as_json(),
            )
        )
        for key, detail in found.to_report.items():
            await record_finding(session, key, _UNEXPLAINED, **detail)
        for key in found.resolved:
            await resolve_finding(session, key, now_ms())
