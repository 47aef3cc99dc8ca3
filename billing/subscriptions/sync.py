"""A subscription as Razorpay has it, brought into our books.

The rule: what is applied was fetched after everything that was applied before it, whatever a status says of its rank
(a halted one can become active again). `applied` counts: a fetch during which somebody else applied one may be the
older of the two, and is made again. What follows from it hangs on the ids of payments and invoices, so that applying
the same twice changes nothing. The fetches are outside of any transaction. Razorpay away: raises RazorpayError; a
store down: Unavailable; either way nothing was applied, and whoever asked comes again.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.periods import learn_cycle
from billing.access.projection import project
from billing.collection.allocation import take_invoice
from billing.context import CLOSES, COLLECT, SUBSCRIPTIONS, BillingContext, enqueue_after_commit, record_finding
from billing.models import Payment, Subscription
from billing.payments.payments import TAKEN
from billing.razorpay import entities
from billing.razorpay.errors import RazorpayRefused
from billing.subscriptions.intents import TERMINAL, end_replaced
from core.clock import now_ms
from core.errors import NotFound, Unavailable
from core.logs import get_logger

_ROUNDS = 5
_AUTHORISED = frozenset({"authenticated", "active", "pending", "halted", "paused", "completed"})
_NO_SUCH = frozenset({400, 404})
"""How an id is refused that is not known; 401 and 403 are about our key."""

log = get_logger(__name__)


class Overtaken(Unavailable):
    """Others applied theirs all the time: it is to be tried again later."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What Razorpay said, all of it after `applied` was read."""

    subscription: entities.Subscription
    invoices: list[entities.Invoice]
    payments: dict[str, entities.Payment]

    @property
    def is_whole(self) -> bool:
        """Whether the list of invoices has caught up with the subscription."""
        return len(_paid(self.invoices)) >= self.subscription.paid_count


async def refresh(
    context: BillingContext, tenant_id: UUID, subscription_id: UUID, *, hints: Collection[str] = ()
) -> bool:
    """Fetches the subscription, its invoices and the payments that we miss, and applies them.

    `hints`: invoices that an event named; a list may lag minutes behind. False when it still does, so that an invoice
    is missing: what there is was applied, and it is to be done again. Raises RazorpayError, Unavailable, NotFound.
    """
    for _ in range(_ROUNDS):
        row, known = await _read(context, tenant_id, subscription_id)
        if row.razorpay_id is None:
            return True  # whoever submits it finds it
        try:
            told = await _fetch(context, row.razorpay_id, known, hints)
        except RazorpayRefused as refused:
            if refused.status not in _NO_SUCH:
                raise
            await _report_unknown(context, row, refused)
            return True
        if await _apply(context, row, told):
            return told.is_whole
    log.warning("mirror_overtaken", subscription=str(subscription_id))
    raise Overtaken("others are at this subscription")


async def _read(context: BillingContext, tenant_id: UUID, subscription_id: UUID) -> tuple[Subscription, set[str]]:
    """The row before the fetch, and the payments that were applied already."""
    applied = select(Payment.razorpay_id).where(
        Payment.tenant_id == tenant_id, Payment.subscription_id == subscription_id, Payment.bill_id.is_not(None)
    )
    async with context.database.session() as session:
        row = await session.get(Subscription, (tenant_id, subscription_id))
        if row is None:
            raise NotFound("no such subscription")
        return row, set(await session.scalars(applied))


async def _fetch(context: BillingContext, razorpay_id: str, known: Collection[str], hints: Collection[str]) -> _Told:
    subscription = await context.razorpay.fetch_subscription(razorpay_id)
    found = {invoice.id: invoice for invoice in await context.razorpay.invoices_of(razorpay_id)}
    for hint in set(hints).difference(found):
        invoice = await context.razorpay.fetch_invoice(hint)
        if invoice.subscription_id == razorpay_id:
            found[hint] = invoice
    invoices = sorted(found.values(), key=lambda one: (one.billing_start or 0, one.id))
    missing = [one.payment_id for one in _paid(invoices) if one.payment_id and one.payment_id not in known]
    payments = {payment_id: await context.razorpay.fetch_payment(payment_id) for payment_id in missing}
    return _Told(subscription, invoices, payments)


async def _apply(context: BillingContext, read: Subscription, told: _Told) -> bool:
    """False when another fetch was applied meanwhile: nothing is done."""
    at_ms = now_ms()
    async with context.tenant_transaction(read.tenant_id) as session:
        row = await session.get_one(Subscription, (read.tenant_id, read.id))
        if row.applied != read.applied:
            return False
        before = _shown(row)
        _copy(row, told.subscription, at_ms)
        await _learn_cycles(session, row, told)
        for invoice in _paid(told.invoices):
            payment = told.payments.get(invoice.payment_id or "")
            if payment is not None and payment.status in TAKEN:
                await take_invoice(session, context, row, invoice, payment, at_ms)
        row.international = await _is_international(session, row)
        await end_replaced(session, row, at_ms)
        await project(session, context.zone, row.tenant_id, at_ms)
        if told.payments or before != _shown(row):
            enqueue_after_commit(session, CLOSES, COLLECT, SUBSCRIPTIONS)
    return True


def _copy(row: Subscription, told: entities.Subscription, at_ms: int) -> None:
    """Razorpay's word, over the one before."""
    row.applied += 1
    row.fetched_ms = at_ms
    row.status = told.status
    row.payment_method = told.payment_method or row.payment_method
    row.current_start_ms, row.current_end_ms = _ms(told.current_start), _ms(told.current_end)
    row.charge_at_ms, row.start_ms, row.ended_ms = _ms(told.charge_at), _ms(told.start_at), _ms(told.ended_at)
    row.paid_count, row.remaining_count = told.paid_count, told.remaining_count
    row.total_count = told.total_count or row.total_count
    row.short_url = told.short_url or row.short_url
    if row.authorised_ms is None and (told.status in _AUTHORISED or told.paid_count):
        row.authorised_ms = at_ms
    if row.authorised_ms is not None or told.status in TERMINAL:
        row.is_open = False


async def _learn_cycles(session: AsyncSession, row: Subscription, told: _Told) -> None:
    """Of every invoice, and the present one: its invoice may not be listed yet."""
    now = told.subscription
    starts = {invoice.billing_start for invoice in told.invoices}
    if now.current_start and now.current_end and now.current_start not in starts:
        await _learn(session, row, now.current_start, now.current_end)
    for invoice in told.invoices:
        if invoice.billing_start and invoice.billing_end:
            paid = invoice.status == "paid"
            await _learn(session, row, invoice.billing_start, invoice.billing_end, invoice.id, paid=paid)
            if paid:
                row.paid_through_ms = max(row.paid_through_ms or 0, invoice.billing_end * 1000)


async def _learn(
    session: AsyncSession,
    row: Subscription,
    starts: int,
    ends: int,
    invoice_id: str | None = None,
    *,
    paid: bool = False,
) -> None:
    await learn_cycle(
        session, row, starts_ms=starts * 1000, ends_ms=ends * 1000, razorpay_invoice_id=invoice_id, paid=paid
    )


async def _is_international(session: AsyncSession, row: Subscription) -> bool | None:
    """Whether its last payment was; what is in the books, for not every payment is fetched again."""
    newest = (
        select(Payment.international)
        .where(Payment.tenant_id == row.tenant_id, Payment.subscription_id == row.id, Payment.status.in_(TAKEN))
        .order_by(Payment.captured_ms.desc(), Payment.razorpay_id.desc())
        .limit(1)
    )
    await session.flush()
    found = await session.scalar(newest)
    return row.international if found is None else found


async def _report_unknown(context: BillingContext, row: Subscription, refused: RazorpayRefused) -> None:
    async with context.database.session() as session:
        detail = {"razorpay_id": row.razorpay_id, "said": str(refused)}
        await record_finding(
            session, f"unknown:{row.razorpay_id}", "subscription_unknown", tenant_id=row.tenant_id, **detail
        )


def _paid(invoices: Iterable[entities.Invoice]) -> list[entities.Invoice]:
    return [invoice for invoice in invoices if invoice.status == "paid"]


def _shown(row: Subscription) -> tuple[object, ...]:
    return (row.status, row.current_end_ms, row.paid_count, row.remaining_count, row.paid_through_ms, row.cancel_state)


def _ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000
