"""The rows of charges, each one attempt to collect a bill: `intended -> submitting -> submitted -> paid`.

Every step runs under the tenant's lock and reads the row again, so a late or repeated step changes nothing. A bill has
at most one live charge (an index enforces it); the next is created only after a fetch showed the last one gone.
"""

from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.findings import record_finding
from billing.models import Bill, Charge, Subscription
from billing.models.bills import SMALLEST_PAISE, balance_sql, due_of
from billing.models.states import (
    LIVE,
    UNANSWERED,
    BillKind,
    BillState,
    ChargeState,
    Instrument,
    SubscriptionState,
    SubscriptionStatus,
)
from billing.writes import MAX_ERROR, claim
from core.clock import DAY_MS, now_ms
from core.errors import Conflict
from core.ids import uuid7
from core.tenancy.audit import Actor, record

POLL_EVERY_MS = 3_600_000
"""Poll interval, in case a webhook is lost."""
LIST_LAG_MS = 15 * 60_000
"""Razorpay's lists may lag this long; an object missing from one after that doesn't exist."""


def needs_charge() -> ColumnElement[bool]:
    """Bills to be collected that have no live charge and none that waits for an operator."""
    blocking = select(Charge.id).where(
        Charge.tenant_id == Bill.tenant_id,
        Charge.bill_id == Bill.id,
        Charge.state.in_((*LIVE, ChargeState.FAILED)),
    )
    is_open = and_(Bill.state == BillState.OPEN, Bill.kind == BillKind.OVERAGE)
    return and_(is_open, balance_sql() > 0, ~blocking.exists())


def needs_attention(at_ms: int) -> ColumnElement[bool]:
    """Live charges (joined with their bills) that have a step due now."""
    bill_changed = or_(Bill.state != BillState.OPEN, balance_sql() != Charge.amount_paise)
    expired = and_(Charge.expire_by_ms < at_ms, Charge.checked_ms <= Charge.expire_by_ms)
    unseen = or_(Charge.checked_ms.is_(None), Charge.checked_ms < at_ms - POLL_EVERY_MS, expired)
    is_due = or_(Charge.state.in_(UNANSWERED), bill_changed, Charge.wanted_void.is_not(None), unseen)
    return and_(Charge.state.in_(LIVE), is_due)


async def create_charge(context: BillingContext, tenant_id: UUID, bill_id: UUID) -> None:
    """Stores the intent of a bill's next charge, if it still needs one. An uncollectable rest is written off."""
    async with context.tenant_transaction(tenant_id) as session:
        query = select(Bill).where(Bill.tenant_id == tenant_id, Bill.id == bill_id, needs_charge())
        bill = (await session.scalars(query)).one_or_none()
        if bill is None:
            return
        if due_of(bill) < SMALLEST_PAISE:
            bill.state = BillState.CREDITED  # a credit note left less than Razorpay can collect
            return
        at_ms = now_ms()
        of_bill = select(Charge).where(Charge.tenant_id == tenant_id, Charge.bill_id == bill_id)
        earlier = (await session.scalars(of_bill.order_by(Charge.attempt))).all()
        attempt = earlier[-1].attempt + 1 if earlier else 1
        had_addon = any(one.instrument == Instrument.ADDON for one in earlier)
        carrier = None if had_addon else await _addon_carrier(session, context, tenant_id)
        session.add(
            Charge(
                tenant_id=tenant_id,
                id=uuid7(at_ms),
                bill_id=bill_id,
                attempt=attempt,
                instrument=Instrument.PAYMENT_LINK if carrier is None else Instrument.ADDON,
                state=ChargeState.INTENDED,
                amount_paise=due_of(bill),
                reference=f"{bill_id.hex}-{attempt}",
                subscription_id=carrier,
                created_ms=at_ms,
            )
        )


async def _addon_carrier(session: AsyncSession, context: BillingContext, tenant_id: UUID) -> UUID | None:
    """The subscription whose next invoice can carry an add-on. Razorpay takes add-ons for international cards alone."""
    if not context.rules.addons:
        return None
    query = (
        select(Subscription.id)
        .where(
            Subscription.tenant_id == tenant_id,
            Subscription.state == SubscriptionState.SUBMITTED,
            Subscription.status == SubscriptionStatus.ACTIVE,
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


async def claim_charge(context: BillingContext, tenant_id: UUID, charge_id: UUID) -> tuple[Charge, str]:
    """The charge and its state before. An `intended` one becomes `submitting`, for this caller alone.

    A charge whose bill changed is to be voided: at once, if no call was made yet.
    """
    async with context.tenant_transaction(tenant_id) as session:
        charge = await session.get_one(Charge, (tenant_id, charge_id))
        bill = await session.get_one(Bill, (tenant_id, charge.bill_id))
        was = charge.state
        if was not in LIVE:
            return charge, was
        if due_of(bill) != charge.amount_paise and charge.razorpay_invoice_id is None:
            charge.wanted_void = charge.wanted_void or "the bill changed"
        if was == ChargeState.INTENDED and charge.wanted_void is not None:
            charge.state, charge.error, charge.ended_ms = ChargeState.VOID, charge.wanted_void, now_ms()
            enqueue_after_commit(session, COLLECT)
            return charge, charge.state
        claim(charge)
        return charge, was


async def fail_charge(context: BillingContext, charge: Charge, error: str) -> None:
    """Stores Razorpay's refusal. The bill gets no further charge until an operator retries."""
    async with context.locked(charge) as (session, fresh):
        if fresh.state != ChargeState.SUBMITTING:
            return
        fresh.state, fresh.error, fresh.ended_ms = ChargeState.FAILED, error[:MAX_ERROR], now_ms()
        detail = {"charge_id": str(fresh.id), "bill_id": str(fresh.bill_id), "error": fresh.error}
        await record_finding(session, f"charge_failed:{fresh.id}", "charge_failed", tenant_id=fresh.tenant_id, **detail)


async def void_charge(context: BillingContext, charge: Charge, reason: str) -> None:
    """Stores that a charge doesn't exist at Razorpay (any more). The bill's next charge may be created."""
    async with context.locked(charge) as (session, fresh):
        if fresh.state not in LIVE:
            return
        fresh.state, fresh.error, fresh.ended_ms = ChargeState.VOID, reason[:MAX_ERROR], now_ms()
        enqueue_after_commit(session, COLLECT)


async def retry_failed_charge(context: BillingContext, actor: Actor, charge_id: UUID, *, reason: str) -> Charge:
    """Voids a refused charge for an operator, so that the next one is made. Raises NotFound, Conflict, Unavailable."""
    async with context.locked_by_id(Charge, charge_id) as (session, charge):
        if charge.state != ChargeState.FAILED:
            raise Conflict(f"only a failed charge can be retried; this one is {charge.state}")
        charge.state, owner, target = ChargeState.VOID, charge.tenant_id, f"charge:{charge_id}"
        before, after = {"state": ChargeState.FAILED, "error": charge.error}, {"state": charge.state, "reason": reason}
        record(session, actor, "charge.retry", tenant_id=owner, target=target, before=before, after=after)
        enqueue_after_commit(session, COLLECT)
    return charge


def link_expiry_ms(context: BillingContext, at_ms: int) -> int:
    """When a link made now expires. Razorpay accepts 15 minutes to 6 months, by its own clock."""
    return at_ms + min(max(context.rules.link_expires_ms, 20 * 60_000), 180 * DAY_MS)
