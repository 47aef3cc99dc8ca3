"""Synchronisation of a subscription from Razorpay.

Only a fetch that began after the last applied one is applied; statuses have no order (a halted subscription can become
active again). Effects are keyed by payment and invoice ids, so applying the same twice changes nothing. Fetches run
outside of any transaction. Razorpay down: RazorpayError; Postgres down: Unavailable; either way nothing was applied.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.periods import record_cycle
from billing.access.projection import project
from billing.catalogue.plans import give_default_plan
from billing.collection.allocation import apply_invoice_payment
from billing.context import CLOSES, COLLECT, SUBSCRIPTIONS, BillingContext, enqueue_after_commit
from billing.findings import record_finding
from billing.models import Payment, Subscription
from billing.models.states import AUTHORISED, CAPTURED, TERMINAL
from billing.razorpay import entities
from billing.razorpay.errors import RazorpayRefused
from billing.subscriptions.intents import end_replaced
from core.clock import now_ms
from core.errors import NotFound, Unavailable
from core.logs import get_logger
from core.tenancy.audit import Actor

_ROUNDS = 5
_ACTOR = Actor("worker:subscriptions")

log = get_logger(__name__)


class Overtaken(Unavailable):
    """Concurrent fetches were applied during every round; try again later."""


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Razorpay's answers, all fetched after `applied` was read."""

    subscription: entities.Subscription
    invoices: list[entities.Invoice]
    payments: dict[str, entities.Payment]

    @property
    def is_complete(self) -> bool:
        """Whether the list of invoices has caught up with the subscription's paid count."""
        return len(_paid(self.invoices)) >= self.subscription.paid_count


async def find_subscription(context: BillingContext, razorpay_id: str) -> Subscription | None:
    """The subscription with this id at Razorpay, of any tenant."""
    async with context.database.session() as session:
        query = select(Subscription).where(Subscription.razorpay_id == razorpay_id)
        return (await session.scalars(query)).one_or_none()


async def refresh_subscription(
    context: BillingContext, tenant_id: UUID, subscription_id: UUID, *, hints: Collection[str] = ()
) -> bool:
    """Fetches the subscription, its invoices and the missing payments, and applies them.

    `hints`: ids of invoices that an event named, since the list may lag by minutes. False if an invoice is still
    missing: the rest was applied; refresh again later. Raises RazorpayError, Unavailable, NotFound.
    """
    for _ in range(_ROUNDS):
        row, known = await _read(context, tenant_id, subscription_id)
        if row.razorpay_id is None:
            return True  # not created yet
        try:
            fetched = await _fetch(context, row.razorpay_id, known, hints)
        except RazorpayRefused as refused:
            if not refused.is_unknown_id:
                raise
            await _report_unknown(context, row, refused)
            return True
        if await _apply(context, row, fetched):
            return fetched.is_complete
    log.warning("sync_overtaken", subscription=str(subscription_id))
    raise Overtaken("other processes are updating this subscription")


async def _read(context: BillingContext, tenant_id: UUID, subscription_id: UUID) -> tuple[Subscription, set[str]]:
    """The row before the fetch, and the ids of the payments that were applied already."""
    applied = select(Payment.razorpay_id).where(
        Payment.tenant_id == tenant_id, Payment.subscription_id == subscription_id, Payment.bill_id.is_not(None)
    )
    async with context.database.session() as session:
        row = await session.get(Subscription, (tenant_id, subscription_id))
        if row is None:
            raise NotFound("no such subscription")
        return row, set(await session.scalars(applied))


async def _fetch(context: BillingContext, razorpay_id: str, known: Collection[str], hints: Collection[str]) -> _Fetched:
    subscription = await context.razorpay.fetch_subscription(razorpay_id)
    found = {invoice.id: invoice for invoice in await context.razorpay.invoices_of(razorpay_id)}
    for hint in set(hints).difference(found):
        invoice = await context.razorpay.fetch_invoice(hint)
        if invoice.subscription_id == razorpay_id:
            found[hint] = invoice
    invoices = sorted(found.values(), key=lambda one: (one.billing_start or 0, one.id))
    missing = [one.payment_id for one in _paid(invoices) if one.payment_id and one.payment_id not in known]
    payments = {payment_id: await context.razorpay.fetch_payment(payment_id) for payment_id in missing}
    return _Fetched(subscription, invoices, payments)


async def _apply(context: BillingContext, read: Subscription, fetched: _Fetched) -> bool:
    """Applies the fetch; False, changing nothing, if another one was applied meanwhile."""
    at_ms = now_ms()
    async with context.locked(read) as (session, row):
        if row.applied != read.applied:
            return False
        before = _shown(row)
        _copy(row, fetched.subscription, at_ms)
        await _record_cycles(session, row, fetched)
        for invoice in _paid(fetched.invoices):
            payment = fetched.payments.get(invoice.payment_id or "")
            if payment is not None and payment.status in CAPTURED:
                await apply_invoice_payment(session, context, row, invoice, payment, at_ms)
        row.international = await _is_international(session, row)
        await end_replaced(session, row, at_ms)
        await _ensure_own_plan(session, context, row)
        await project(session, context.zone, row.tenant_id, at_ms)
        if fetched.payments or before != _shown(row):
            enqueue_after_commit(session, CLOSES, COLLECT, SUBSCRIPTIONS)
    return True


async def _ensure_own_plan(session: AsyncSession, context: BillingContext, row: Subscription) -> None:
    """Gives the tenant the default plan when its subscription is authorised: it applies once that one has ended."""
    if row.authorised_ms is None:
        return
    try:
        await give_default_plan(session, _ACTOR, row.tenant_id, context.settings.default_plan, context.zone)
    except NotFound:
        log.warning("default_plan_missing", plan=context.settings.default_plan)  # `naka doctor` reports it


def _copy(row: Subscription, fetched: entities.Subscription, at_ms: int) -> None:
    """Overwrites Razorpay's fields."""
    row.applied += 1
    row.fetched_ms = at_ms
    row.status = fetched.status
    row.payment_method = fetched.payment_method or row.payment_method
    row.current_start_ms, row.current_end_ms = _ms(fetched.current_start), _ms(fetched.current_end)
    row.charge_at_ms, row.start_ms, row.ended_ms = _ms(fetched.charge_at), _ms(fetched.start_at), _ms(fetched.ended_at)
    row.paid_count, row.remaining_count = fetched.paid_count, fetched.remaining_count
    row.total_count = fetched.total_count or row.total_count
    row.short_url = fetched.short_url or row.short_url
    if row.authorised_ms is None and (fetched.status in AUTHORISED or fetched.paid_count):
        row.authorised_ms = at_ms
    if row.authorised_ms is not None or fetched.status in TERMINAL:
        row.is_open = False


async def _record_cycles(session: AsyncSession, row: Subscription, fetched: _Fetched) -> None:
    """Records the cycle of every invoice, and the current one, whose invoice may not be listed yet."""
    now = fetched.subscription
    cycles = [(one.billing_start, one.billing_end, one.id, one.status == "paid") for one in fetched.invoices]
    if now.current_start not in {start for start, *_ in cycles}:
        cycles.insert(0, (now.current_start, now.current_end, "", False))
    for start, end, invoice_id, paid in cycles:
        if start and end:
            await record_cycle(
                session, row, starts_ms=start * 1000, ends_ms=end * 1000, razorpay_invoice_id=invoice_id, paid=paid
            )
            if paid:
                row.paid_through_ms = max(row.paid_through_ms or 0, end * 1000)


async def _is_international(session: AsyncSession, row: Subscription) -> bool | None:
    """Whether the last stored payment was international; not every payment is fetched again."""
    newest = (
        select(Payment.international)
        .where(Payment.tenant_id == row.tenant_id, Payment.subscription_id == row.id, Payment.status.in_(CAPTURED))
        .order_by(Payment.captured_ms.desc(), Payment.razorpay_id.desc())
        .limit(1)
    )
    await session.flush()
    found = await session.scalar(newest)
    return row.international if found is None else found


async def _report_unknown(context: BillingContext, row: Subscription, refused: RazorpayRefused) -> None:
    async with context.database.session() as session:
        key, detail = f"unknown:{row.razorpay_id}", {"razorpay_id": row.razorpay_id, "said": str(refused)}
        await record_finding(session, key, "subscription_unknown", tenant_id=row.tenant_id, **detail)


def _paid(invoices: Iterable[entities.Invoice]) -> list[entities.Invoice]:
    return [invoice for invoice in invoices if invoice.status == "paid"]


def _shown(row: Subscription) -> tuple[object, ...]:
    return (row.status, row.current_end_ms, row.paid_count, row.remaining_count, row.paid_through_ms, row.cancel_state)


def _ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000
