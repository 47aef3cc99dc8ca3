"""Refunds: requested once per cause, sent under an idempotency key, followed until processed or failed.

Above the operator's cap a refund waits for approval; one that failed is sent again when an operator says so. A refund
made in Razorpay's dashboard gets a row when it is seen; the bill that its payment paid stays paid, and a finding
reports it (it gets its document in `billing.invoicing.refunds_by_hand`). Razorpay down: the duty tries again. Postgres
down: Unavailable, and nothing is sent.
"""

from functools import partial
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.findings import record_finding, resolve_finding
from billing.ledger.movements import refund_changed
from billing.models import Payment, Refund
from billing.models.states import REFUND_ENDED, REFUND_UNSENT, UNANSWERED, RefundState
from billing.payments.payments import find_payment, update_payment
from billing.razorpay import entities
from billing.razorpay.errors import RazorpayRefused
from billing.writes import MAX_ERROR, advance_all, claim, submit
from core.clock import now_ms
from core.errors import Conflict
from core.ids import uuid7
from core.tenancy.audit import Actor, record

_POLL_EVERY_MS = 3_600_000
_NOTE = "naka_refund"
_AGAIN = ":again:"
"""In the cause of a refund, before the id of the failed one that it replaces."""


async def request_refund(
    session: AsyncSession, context: BillingContext, tenant_id: UUID, payment_id: str, amount_paise: int, cause: str
) -> Refund:
    """Stores a refund, once per cause; the duty COLLECT makes the call. The tenant's lock is held."""
    known = await session.scalars(select(Refund).where(Refund.tenant_id == tenant_id, Refund.cause == cause))
    row = known.one_or_none()
    if row is not None:
        return row
    at_ms = now_ms()
    needs_approval = amount_paise > context.rules.refund_cap_paise
    row = Refund(
        tenant_id=tenant_id,
        id=uuid7(at_ms),
        payment_id=payment_id,
        amount_paise=amount_paise,
        cause=cause,
        state=RefundState.AWAITING_OPERATOR if needs_approval else RefundState.INTENDED,
        created_ms=at_ms,
    )
    session.add(row)
    await session.flush()
    if needs_approval:
        await _report(session, row, "refund_awaits_operator")
    enqueue_after_commit(session, COLLECT)
    return row


async def wanted_paise(session: AsyncSession, payment: Payment, *, with_failed: bool = False) -> int:
    """What refunds will take of a payment that Razorpay doesn't show yet.

    `with_failed`: also those that failed, and that an operator may still send again. The tenant's lock is held.
    """
    its = select(Refund).where(Refund.tenant_id == payment.tenant_id, Refund.payment_id == payment.razorpay_id)
    rows = (await session.scalars(its)).all()
    sent_again = {row.cause.partition(_AGAIN)[2] for row in rows}
    failed = [row for row in rows if row.state == RefundState.FAILED and str(row.id) not in sent_again]
    unsent = [row for row in rows if row.state in REFUND_UNSENT]
    return sum(row.amount_paise for row in (*unsent, *(failed if with_failed else ())))


async def decide_refund(
    context: BillingContext, actor: Actor, refund_id: UUID, *, approve: bool, reason: str
) -> Refund:
    """Approves or denies a refund above the cap. Raises NotFound, Conflict, Unavailable."""
    async with context.locked_by_id(Refund, refund_id) as (session, row):
        if row.state != RefundState.AWAITING_OPERATOR:
            raise Conflict(f"this refund doesn't await approval; it is {row.state}")
        before = {"state": row.state, "amount_paise": row.amount_paise, "payment_id": row.payment_id}
        row.state = RefundState.INTENDED if approve else RefundState.VOID
        action, after = "refund.approve" if approve else "refund.deny", {"state": row.state, "reason": reason}
        target = f"refund:{refund_id}"
        record(session, actor, action, tenant_id=row.tenant_id, target=target, before=before, after=after)
        enqueue_after_commit(session, COLLECT)
    return row


async def send_again(context: BillingContext, actor: Actor, refund_id: UUID, *, reason: str) -> Refund:
    """A new refund in place of one that failed, once; repeated, the same. Raises NotFound, Conflict, Unavailable."""
    async with context.locked_by_id(Refund, refund_id) as (session, failed):
        if failed.state != RefundState.FAILED:
            raise Conflict(f"only a failed refund can be sent again; this one is {failed.state}")
        cause = f"{failed.cause.split(_AGAIN)[0]}{_AGAIN}{failed.id}"
        query = select(Refund).where(Refund.tenant_id == failed.tenant_id, Refund.cause == cause)
        row = (await session.scalars(query)).one_or_none()
        if row is not None:
            return row
        payment = await session.get_one(Payment, (failed.tenant_id, failed.payment_id))
        left_paise = payment.amount_paise - payment.refunded_paise
        if left_paise < failed.amount_paise:
            raise Conflict(f"only {left_paise} paise of the payment are left; the rest was refunded")
        at_ms = now_ms()
        row = Refund(
            tenant_id=failed.tenant_id,
            id=uuid7(at_ms),
            payment_id=failed.payment_id,
            amount_paise=failed.amount_paise,
            cause=cause,
            state=RefundState.INTENDED,
            created_ms=at_ms,
        )
        session.add(row)
        before, after = {"state": failed.state, "error": failed.error}, {"refund": str(row.id), "reason": reason}
        target = f"refund:{refund_id}"
        record(session, actor, "refund.retry", tenant_id=row.tenant_id, target=target, before=before, after=after)
        await resolve_finding(session, f"refund_failed:{refund_id}", at_ms)
        enqueue_after_commit(session, COLLECT)
    return row


async def send_refunds(context: BillingContext) -> None:
    """Sends or follows up every refund that is due."""
    is_stale = and_(Refund.state == RefundState.PENDING, Refund.tried_ms < now_ms() - _POLL_EVERY_MS)
    due = select(Refund.tenant_id, Refund.id).where(or_(Refund.state.in_(UNANSWERED), is_stale)).order_by(Refund.id)
    await advance_all(context, due, send_refund, Refund)


async def send_refund(context: BillingContext, tenant_id: UUID, refund_id: UUID) -> None:
    """Makes the next step of one refund. Raises RazorpayError, Unavailable."""
    async with context.tenant_transaction(tenant_id) as session:
        row = await session.get_one(Refund, (tenant_id, refund_id))
        was = row.state
        if not claim(row) and was in {RefundState.SUBMITTING, RefundState.PENDING}:
            row.tried_ms = now_ms()
    if was in UNANSWERED:
        find = partial(_find_ours, context, row)
        is_sent = await submit(
            partial(
                context.razorpay.refund,
                row.payment_id,
                amount_paise=row.amount_paise,
                key=row.id.hex,
                notes={_NOTE: str(row.id)},
            ),
            apply=partial(_adopt, context, row),
            on_refused=partial(_refuse, context, row),
            find=find if was == RefundState.SUBMITTING else None,
        )
        if not is_sent:
            return
    await refresh_refunds(context, row.payment_id)


async def _find_ours(context: BillingContext, row: Refund) -> entities.Refund | None:
    found = await context.razorpay.refunds_of(row.payment_id)
    return next((one for one in found if one.notes.get(_NOTE) == str(row.id)), None)


async def _adopt(context: BillingContext, row: Refund, sent: entities.Refund) -> None:
    """Stores the refund's id. Its outcome is fetched next, and again until that works."""
    async with context.locked(row) as (_, fresh):
        if fresh.state == RefundState.SUBMITTING:
            fresh.state, fresh.razorpay_id, fresh.error = RefundState.PENDING, sent.id, None


async def _refuse(context: BillingContext, row: Refund, refused: RazorpayRefused) -> entities.Refund | None:
    """The refund that was sent before, if there is one. Otherwise a refusal of this very request fails the row."""
    sent = await _find_ours(context, row)
    if sent is not None or not refused.is_invalid_request:
        return sent
    async with context.locked(row) as (session, fresh):
        if fresh.state == RefundState.SUBMITTING:
            fresh.state, fresh.error = RefundState.FAILED, str(refused)[:MAX_ERROR]
            await _report(session, fresh, "refund_failed")
    return None


async def refresh_refunds(context: BillingContext, payment_id: str) -> bool:
    """Fetches a payment (Razorpay's id) and its refunds, and applies both; False if it isn't ours.

    Raises RazorpayError, Unavailable.
    """
    async with context.database.session() as session:
        known = await find_payment(session, payment_id)
    if known is None:
        return False
    payment = await context.razorpay.fetch_payment(payment_id)
    found = await context.razorpay.refunds_of(payment_id)  # the payment doesn't show refunds that failed
    async with context.tenant_transaction(known.tenant_id) as session:
        row = await update_payment(session, payment)
        if row is not None:
            for refund in found:
                await _apply(session, row, refund)
    return True


async def _apply(session: AsyncSession, payment: Payment, refund: entities.Refund) -> None:
    """Applies one fetched refund. An older fetch doesn't make an ended refund pending again."""
    its = select(Refund).where(Refund.tenant_id == payment.tenant_id, Refund.payment_id == payment.razorpay_id)
    note = refund.notes.get(_NOTE)
    known = (one for one in await session.scalars(its) if one.razorpay_id == refund.id or str(one.id) == note)
    row = next(known, None)
    if row is None:
        row = Refund(
            tenant_id=payment.tenant_id,
            id=uuid7(now_ms()),
            payment_id=payment.razorpay_id,
            amount_paise=refund.amount,
            cause=f"razorpay:{refund.id}",
            state=RefundState.PENDING,
            created_ms=refund.created_at * 1000,
        )
        session.add(row)
        await session.flush()
        if payment.bill_id is not None:
            await _report(session, row, "refund_by_hand", bill_id=str(payment.bill_id), razorpay_id=refund.id)
            enqueue_after_commit(session, COLLECT)
    row.razorpay_id = refund.id
    has_ended = refund.status in REFUND_ENDED
    if row.state not in REFUND_ENDED or has_ended:
        was, row.state = row.state, refund.status if has_ended else RefundState.PENDING
        if row.state == RefundState.FAILED and was != RefundState.FAILED:
            await _report(session, row, "refund_failed")
    await session.flush()
    await refund_changed(session, row, now_ms())


async def _report(session: AsyncSession, row: Refund, kind: str, **more: str) -> None:
    detail = {"refund_id": str(row.id), "payment_id": row.payment_id, "amount_paise": row.amount_paise}
    detail |= {"cause": row.cause, "error": row.error or ""}
    await record_finding(session, f"{kind}:{row.id}", kind, tenant_id=row.tenant_id, **detail, **more)
