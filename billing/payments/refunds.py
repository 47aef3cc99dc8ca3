"""Money on its way back: wanted once per cause, sent under an idempotency key, followed until it arrived or failed.

The row is committed before the call, and its id is the key: the same call again can only find the first refund. Above
the operator's cap nothing goes out before an operator said so. A refund that somebody made in Razorpay's dashboard
gets a row when it is seen; a bill that it paid for is not opened again, a person is told. Razorpay away: the duty
comes again; a store down: Unavailable, and nothing is sent.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import COLLECT, BillingContext, enqueue_after_commit, record_finding
from billing.models import Payment, Refund
from billing.payments.payments import find_payment, take_payment
from billing.razorpay import entities
from billing.razorpay.errors import RazorpayError, RazorpayRefused
from core.clock import now_ms
from core.errors import Conflict, NakaError, NotFound
from core.ids import uuid7
from core.logs import get_logger
from core.tenancy.audit import Actor, record

_LOOK_EVERY_MS = 3_600_000
_NOTE = "naka_refund"
_ENDED = frozenset({"processed", "failed"})
_NO = frozenset({400, 422})
"""A verdict on this refund; another 4xx (a wrong key, a lost route) is one on the call."""

log = get_logger(__name__)


async def want(
    session: AsyncSession, context: BillingContext, tenant_id: UUID, payment_id: str, amount_paise: int, cause: str
) -> Refund:
    """Has money given back, once per cause. The tenant's lock is held; the call is made by the duty COLLECT."""
    known = await session.scalars(select(Refund).where(Refund.tenant_id == tenant_id, Refund.cause == cause))
    row = known.one_or_none()
    if row is not None:
        return row
    at_ms = now_ms()
    above = amount_paise > context.rules.refund_cap_paise
    row = Refund(
        tenant_id=tenant_id,
        id=uuid7(at_ms),
        payment_id=payment_id,
        amount_paise=amount_paise,
        cause=cause,
        state="awaiting_operator" if above else "intended",
        created_ms=at_ms,
    )
    session.add(row)
    await session.flush()
    if above:
        await _tell(session, row, "refund_awaits_operator")
    enqueue_after_commit(session, COLLECT)
    return row


async def refresh(context: BillingContext, payment_id: str) -> bool:
    """Fetches a payment (Razorpay's id) and its refunds, and applies both; False if it is none of ours.

    Raises RazorpayError, Unavailable.
    """
    async with context.database.session() as session:
        known = await find_payment(session, payment_id)
    if known is None:
        return False
    payment = await context.razorpay.fetch_payment(payment_id)
    found = await context.razorpay.refunds_of(payment_id)  # one that failed does not show in the payment
    async with context.tenant_transaction(known.tenant_id) as session:
        row = await take_payment(session, payment, now_ms())
        if row is not None:
            for refund in found:
                await _apply(session, row, refund)
    return True


async def decide(context: BillingContext, actor: Actor, refund_id: UUID, *, approve: bool, reason: str) -> Refund:
    """An operator's word on a refund above the cap. Raises NotFound, Conflict, Unavailable."""
    async with context.database.session() as session:
        tenant_id = await session.scalar(select(Refund.tenant_id).where(Refund.id == refund_id))
    if tenant_id is None:
        raise NotFound("no such refund")
    async with context.tenant_transaction(tenant_id) as session:
        row = await session.get_one(Refund, (tenant_id, refund_id))
        if row.state != "awaiting_operator":
            raise Conflict(f"it does not await an operator: it is {row.state}")
        row.state = "intended" if approve else "void"
        record(
            session,
            actor,
            "refund.approve" if approve else "refund.deny",
            tenant_id=tenant_id,
            target=f"refund:{refund_id}",
            before={"state": "awaiting_operator", "amount_paise": row.amount_paise, "payment_id": row.payment_id},
            after={"state": row.state, "reason": reason},
        )
        enqueue_after_commit(session, COLLECT)
    return row


# ------------------------------------------------------------------------------------------------ sending them


async def drive(context: BillingContext) -> None:
    """Every refund that is to be sent or looked after. What fails is tried again at the next run."""
    for tenant_id, refund_id in await _due(context):
        try:
            await drive_one(context, tenant_id, refund_id)
        except (RazorpayError, NakaError) as error:
            log.warning("refund_waits", refund=str(refund_id), error=str(error))
        except Exception:
            log.exception("refund_fails", refund=str(refund_id))


async def drive_one(context: BillingContext, tenant_id: UUID, refund_id: UUID) -> None:
    """The next step of one refund. Raises RazorpayError, Unavailable."""
    async with context.tenant_transaction(tenant_id) as session:
        row = await session.get_one(Refund, (tenant_id, refund_id))
        was = row.state
        if was in {"intended", "submitting", "pending"}:
            row.tried_ms = now_ms()
        if was == "intended":
            row.state = "submitting"
    if was in {"intended", "submitting"}:
        sent = await _find_ours(context, row) if was == "submitting" else None
        sent = sent or await _send(context, row)
        if sent is None:
            return
        await _adopt(context, row, sent)
    await refresh(context, row.payment_id)


async def _due(context: BillingContext) -> Sequence[tuple[UUID, UUID]]:
    waits = and_(Refund.state == "pending", Refund.tried_ms < now_ms() - _LOOK_EVERY_MS)
    query = select(Refund.tenant_id, Refund.id).where(or_(Refund.state.in_(("intended", "submitting")), waits))
    async with context.database.session() as session:
        return [(row[0], row[1]) for row in (await session.execute(query.order_by(Refund.id))).all()]


async def _send(context: BillingContext, row: Refund) -> entities.Refund | None:
    """The call: made again under the same key, it answers the first one's refund. None: refused, and stored so."""
    try:
        return await context.razorpay.refund(
            row.payment_id, amount_paise=row.amount_paise, key=row.id.hex, notes={_NOTE: str(row.id)}
        )
    except RazorpayRefused as refused:
        sent = await _find_ours(context, row)
        if sent is not None or refused.status not in _NO:
            return sent
        async with context.tenant_transaction(row.tenant_id) as session:
            fresh = await session.get_one(Refund, (row.tenant_id, row.id))
            if fresh.state == "submitting":
                fresh.state, fresh.error = "failed", str(refused)[:500]
                await _tell(session, fresh, "refund_failed")
        return None


async def _find_ours(context: BillingContext, row: Refund) -> entities.Refund | None:
    found = await context.razorpay.refunds_of(row.payment_id)
    return next((one for one in found if one.notes.get(_NOTE) == str(row.id)), None)


async def _adopt(context: BillingContext, row: Refund, sent: entities.Refund) -> None:
    """Razorpay has it. How it ended is read back, and looked for again until that has worked."""
    async with context.tenant_transaction(row.tenant_id) as session:
        fresh = await session.get_one(Refund, (row.tenant_id, row.id))
        if fresh.state == "submitting":
            fresh.state, fresh.razorpay_id, fresh.error = "pending", sent.id, None


# --------------------------------------------------------------------------------------------- following them


async def _apply(session: AsyncSession, payment: Payment, refund: entities.Refund) -> None:
    """One refund as fetched; what has ended is not told back to be pending by an older fetch."""
    row = await _row_of(session, payment, refund)
    if row is None:
        row = Refund(
            tenant_id=payment.tenant_id,
            id=uuid7(now_ms()),
            payment_id=payment.razorpay_id,
            amount_paise=refund.amount,
            cause=f"razorpay:{refund.id}",
            state="pending",
            created_ms=refund.created_at * 1000,
        )
        session.add(row)
        await session.flush()
        if payment.bill_id is not None:
            await _tell(session, row, "refund_by_hand", bill_id=str(payment.bill_id), razorpay_id=refund.id)
    row.razorpay_id = refund.id
    if row.state not in _ENDED or refund.status in _ENDED:
        was, row.state = row.state, refund.status if refund.status in _ENDED else "pending"
        if row.state == "failed" and was != "failed":
            await _tell(session, row, "refund_failed")


async def _row_of(session: AsyncSession, payment: Payment, refund: entities.Refund) -> Refund | None:
    rows = await session.scalars(
        select(Refund).where(Refund.tenant_id == payment.tenant_id, Refund.payment_id == payment.razorpay_id)
    )
    note = refund.notes.get(_NOTE)
    return next((row for row in rows if row.razorpay_id == refund.id or str(row.id) == note), None)


async def _tell(session: AsyncSession, row: Refund, kind: str, **more: str) -> None:
    detail = {"refund_id": str(row.id), "payment_id": row.payment_id, "amount_paise": row.amount_paise}
    said = {"cause": row.cause, "error": row.error or ""}
    await record_finding(session, f"{kind}:{row.id}", kind, tenant_id=row.tenant_id, **detail, **said, **more)
