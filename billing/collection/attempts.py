"""The steps of a charge that are the same for links and add-ons: what its row says, under the tenant's lock.

A step finds the row as it is now: whoever comes late, or a second time, changes nothing.
"""

from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from billing.context import COLLECT, DAY_MS, BillingContext, enqueue_after_commit, record_finding
from billing.invoicing.issuing import SMALLEST_PAISE
from billing.models import Bill, Charge, Subscription
from billing.models.bills import LIVE, due_of
from core.clock import now_ms
from core.ids import uuid7

LOOK_EVERY_MS = 3_600_000
"""So often a charge is fetched, were its webhook lost."""
PATIENCE_MS = 15 * 60_000
"""So long a list may lag: what it does not show until then is not there."""
MAX_ERROR = 500
_BLOCKING = (*LIVE, "failed")


def due_sql() -> ColumnElement[int]:
    """What is due of an open bill, in SQL."""
    return Bill.total_paise - Bill.credited_paise - Bill.paid_paise


def needs_charge() -> ColumnElement[bool]:
    """Bills to be collected of which no attempt lives, nor waits for an operator."""
    attempt = select(Charge.id).where(
        Charge.tenant_id == Bill.tenant_id, Charge.bill_id == Bill.id, Charge.state.in_(_BLOCKING)
    )
    return and_(Bill.state == "open", Bill.kind == "overage", due_sql() > 0, ~attempt.exists())


def needs_care(at_ms: int) -> ColumnElement[bool]:
    """Live charges (joined with their bills) of which something is to be done now."""
    moved = or_(Bill.state != "open", due_sql() != Charge.amount_paise, Charge.wanted_void.is_not(None))
    ended = and_(Charge.expire_by_ms < at_ms, Charge.checked_ms <= Charge.expire_by_ms)
    unseen = or_(Charge.checked_ms.is_(None), Charge.checked_ms < at_ms - LOOK_EVERY_MS, ended)
    return and_(Charge.state.in_(LIVE), or_(Charge.state.in_(("intended", "submitting")), moved, unseen))


async def read(context: BillingContext, tenant_id: UUID, charge_id: UUID) -> Charge:
    """The row as it is. Raises Unavailable."""
    async with context.database.session() as session:
        return await session.get_one(Charge, (tenant_id, charge_id))


async def intend(context: BillingContext, tenant_id: UUID, bill_id: UUID) -> None:
    """The next attempt of a bill, if it still needs one. What is less than can be collected is let go."""
    async with context.tenant_transaction(tenant_id) as session:
        query = select(Bill).where(Bill.tenant_id == tenant_id, Bill.id == bill_id, needs_charge())
        bill = (await session.scalars(query)).one_or_none()
        if bill is None:
            return
        if due_of(bill) < SMALLEST_PAISE:
            bill.state = "credited"  # a part of it was; the rest cannot be moved
            return
        at_ms = now_ms()
        made = (
            await session.scalars(
                select(Charge).where(Charge.tenant_id == tenant_id, Charge.bill_id == bill_id).order_by(Charge.attempt)
            )
        ).all()
        attempt = made[-1].attempt + 1 if made else 1
        rides = None if any(one.instrument == "addon" for one in made) else await _rides(session, context, tenant_id)
        session.add(
            Charge(
                tenant_id=tenant_id,
                id=uuid7(at_ms),
                bill_id=bill_id,
                attempt=attempt,
                instrument="payment_link" if rides is None else "addon",
                state="intended",
                amount_paise=due_of(bill),
                reference=f"{bill_id.hex}-{attempt}",
                subscription_id=rides,
                created_ms=at_ms,
            )
        )


async def _rides(session: AsyncSession, context: BillingContext, tenant_id: UUID) -> UUID | None:
    """The subscription whose next invoice can carry an add-on: Razorpay takes it for international cards alone."""
    if not context.rules.addons:
        return None
    query = (
        select(Subscription.id)
        .where(
            Subscription.tenant_id == tenant_id,
            Subscription.state == "submitted",
            Subscription.status == "active",
            Subscription.payment_method == "card",
            Subscription.international.is_(True),
            Subscription.cancel_at_ms.is_(None),
            Subscription.cancel_state.is_(None),
            Subscription.remaining_count > 0,
        )
        .order_by(Subscription.id.desc())
        .limit(1)
    )
    return (await session.scalars(query)).one_or_none()


async def attend(context: BillingContext, tenant_id: UUID, charge_id: UUID) -> tuple[Charge, str]:
    """The charge, and its state before: an `intended` one is `submitting` from here on, for this caller alone.

    One whose bill does not want it any more is to be void: at once, if nothing has been called yet.
    """
    async with context.tenant_transaction(tenant_id) as session:
        charge = await session.get_one(Charge, (tenant_id, charge_id))
        bill = await session.get_one(Bill, (tenant_id, charge.bill_id))
        was = charge.state
        if was not in LIVE:
            return charge, was
        if due_of(bill) != charge.amount_paise and charge.razorpay_invoice_id is None:
            charge.wanted_void = charge.wanted_void or "the bill moved"
        if was == "intended" and charge.wanted_void is not None:
            charge.state, charge.error, charge.ended_ms = "void", charge.wanted_void, now_ms()
            enqueue_after_commit(session, COLLECT)
            return charge, charge.state
        if was == "intended":
            charge.state, charge.tried_ms, charge.error = "submitting", now_ms(), None
        return charge, was


async def fail(context: BillingContext, charge: Charge, error: str) -> None:
    """Razorpay refused it: an operator has to look, and nothing more is tried with this bill until then."""
    async with context.tenant_transaction(charge.tenant_id) as session:
        fresh = await session.get_one(Charge, (charge.tenant_id, charge.id))
        if fresh.state != "submitting":
            return
        fresh.state, fresh.error, fresh.ended_ms = "failed", error[:MAX_ERROR], now_ms()
        detail = {"charge_id": str(fresh.id), "bill_id": str(fresh.bill_id), "error": fresh.error}
        await record_finding(session, f"charge_failed:{fresh.id}", "charge_failed", tenant_id=fresh.tenant_id, **detail)


async def void(context: BillingContext, charge: Charge, reason: str) -> None:
    """It is gone at Razorpay, or was never there: the next attempt may be made."""
    async with context.tenant_transaction(charge.tenant_id) as session:
        fresh = await session.get_one(Charge, (charge.tenant_id, charge.id))
        if fresh.state not in LIVE:
            return
        fresh.state, fresh.error, fresh.ended_ms = "void", reason[:MAX_ERROR], now_ms()
        enqueue_after_commit(session, COLLECT)


async def unsent(context: BillingContext, charge: Charge, error: str) -> None:
    """The call certainly had no effect: as if it had not been tried."""
    async with context.tenant_transaction(charge.tenant_id) as session:
        fresh = await session.get_one(Charge, (charge.tenant_id, charge.id))
        if fresh.state == "submitting" and fresh.tried_ms == charge.tried_ms:
            fresh.state, fresh.error = "intended", error[:MAX_ERROR]


def link_ends_ms(context: BillingContext, at_ms: int) -> int:
    """When a link made now expires: Razorpay takes a quarter of an hour to six months, by its own clock."""
    return at_ms + min(max(context.rules.link_expires_ms, 20 * 60_000), 180 * DAY_MS)
