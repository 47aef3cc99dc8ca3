"""The rows of charges, each one attempt to collect a bill: `intended -> submitting -> submitted -> paid`.

Every step runs under the tenant's lock and reads the row again, so a late or repeated step changes nothing. A bill has
at most one live charge (an index enforces it); the next is created only after a fetch showed the last one gone.
"""

from collections.abc import Sequence
from functools import cache
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from billing.access.projection import project
from billing.context import COLLECT, SHORTEST_DUE_MS, BillingContext, enqueue_after_commit
from billing.findings import record_finding
from billing.invoicing.prepaid_bills import AUTOMATIC, BY_QR_CODE
from billing.mandates.mandates import mandate_for
from billing.models import Bill, Charge, Mandate, Subscription
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
_LONGEST_WAIT_MS = 2 * DAY_MS
_LONGEST_DEBIT_MS = 5 * DAY_MS
"""Announced, a debit takes 25 to 36 hours with its retries."""
LIST_LAG_MS = 15 * 60_000
"""Razorpay's lists may lag this long; an object missing from one after that doesn't exist."""


@cache
def needs_charge() -> ColumnElement[bool]:
    """Bills to be collected that have no live charge and none that waits for an operator. A top-up gets only one."""
    its = select(Charge.id).where(Charge.tenant_id == Bill.tenant_id, Charge.bill_id == Bill.id)
    blocking = its.where(Charge.state.in_((*LIVE, ChargeState.FAILED)))
    is_wanted = or_(
        # A base bill is paid when it is issued, and open only when a lost dispute took its payment back.
        and_(Bill.kind.in_((BillKind.BASE, BillKind.OVERAGE)), ~blocking.exists()),
        and_(Bill.kind == BillKind.RECEIPT_VOUCHER, ~its.exists()),
    )
    return and_(Bill.state == BillState.OPEN, is_wanted, balance_sql() > 0)


def needs_attention(at_ms: int) -> ColumnElement[bool]:
    """Live charges (joined with their bills) that have a step due now."""
    is_debited = and_(Charge.instrument == Instrument.MANDATE, Charge.state == ChargeState.SUBMITTED)
    bill_changed = and_(~is_debited, or_(Bill.state != BillState.OPEN, balance_sql() != Charge.amount_paise))
    unwanted = and_(~is_debited, Charge.wanted_void.is_not(None))  # a debit can't be called back
    expired = and_(Charge.expire_by_ms < at_ms, Charge.checked_ms <= Charge.expire_by_ms)
    unseen = or_(Charge.checked_ms.is_(None), Charge.checked_ms < at_ms - POLL_EVERY_MS, expired)
    is_due = or_(Charge.state.in_(UNANSWERED), bill_changed, unwanted, unseen)
    return and_(Charge.state.in_(LIVE), is_due)


async def create_charge(context: BillingContext, tenant_id: UUID, bill_id: UUID) -> None:
    """Stores the intent of a bill's next charge, if it still needs one. A rest of less than a rupee is carried on."""
    async with context.tenant_transaction(tenant_id) as session:
        query = select(Bill).where(Bill.tenant_id == tenant_id, Bill.id == bill_id, needs_charge())
        bill = (await session.scalars(query)).one_or_none()
        if bill is None:
            return
        if due_of(bill) < SMALLEST_PAISE:
            bill.state = BillState.PAID if bill.paid_paise else BillState.CREDITED  # `billing.invoicing.carried`
            return
        at_ms = now_ms()
        of_bill = select(Charge).where(Charge.tenant_id == tenant_id, Charge.bill_id == bill_id)
        earlier = (await session.scalars(of_bill.order_by(Charge.attempt))).all()
        attempt = earlier[-1].attempt + 1 if earlier else 1
        mandate = await _mandate_for(session, bill, earlier)
        if mandate is not None and await _waits_for_another(session, mandate, bill, at_ms):
            return
        had_addon = any(one.instrument == Instrument.ADDON for one in earlier)
        if mandate is None and bill.reason == AUTOMATIC:
            # Only a debit can pay a top-up that nobody asked for.
            bill.state, bill.reason = BillState.VOID, f"{AUTOMATIC}: no mandate can be debited"
            return
        is_fixed = had_addon or mandate is not None or bill.kind == BillKind.RECEIPT_VOUCHER
        carrier = None if is_fixed else await _addon_carrier(session, context, tenant_id)
        session.add(
            Charge(
                tenant_id=tenant_id,
                id=uuid7(at_ms),
                bill_id=bill_id,
                attempt=attempt,
                instrument=_instrument(bill, mandate, carrier),
                state=ChargeState.INTENDED,
                amount_paise=due_of(bill),
                reference=f"{bill_id.hex}-{attempt}",
                subscription_id=carrier,
                mandate_id=None if mandate is None else mandate.id,
                created_ms=at_ms,
            )
        )
        had_debit = any(one.instrument == Instrument.MANDATE for one in earlier)
        if bill.due_ms is not None and (mandate is not None or had_debit) and bill.due_ms < at_ms + SHORTEST_DUE_MS:
            bill.due_ms = at_ms + SHORTEST_DUE_MS
            await project(session, context.zone, tenant_id, at_ms)


def _instrument(bill: Bill, mandate: Mandate | None, carrier: UUID | None) -> Instrument:
    if mandate is not None:
        return Instrument.MANDATE
    if bill.kind == BillKind.RECEIPT_VOUCHER and bill.reason == BY_QR_CODE:
        return Instrument.QR_CODE
    return Instrument.PAYMENT_LINK if carrier is None else Instrument.ADDON


async def _mandate_for(session: AsyncSession, bill: Bill, earlier: Sequence[Charge]) -> Mandate | None:
    """The mandate that can be debited; None after a debit of this bill was tried, whatever came of it.

    A top-up that the tenant asked for is paid by hand.
    """
    if bill.kind == BillKind.RECEIPT_VOUCHER and bill.reason != AUTOMATIC:
        return None
    mandate = await mandate_for(session, bill.tenant_id, due_of(bill))
    if mandate is None or any(one.instrument == Instrument.MANDATE and one.order_id is not None for one in earlier):
        return None
    was_tried = any(one.mandate_id == mandate.id and one.tried_ms is not None for one in earlier)
    return None if was_tried else mandate


async def _waits_for_another(session: AsyncSession, mandate: Mandate, bill: Bill, at_ms: int) -> bool:
    """Whether the debit has to wait for the outcome of another one, as Razorpay asks; for two days at most."""
    others = select(Charge.id).where(
        Charge.tenant_id == mandate.tenant_id, Charge.mandate_id == mandate.id, Charge.state.in_(LIVE)
    )
    is_busy = await session.scalar(others.limit(1)) is not None
    return is_busy and at_ms < (bill.issued_ms or at_ms) + _LONGEST_WAIT_MS


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
    """Voids a refused charge, or a debit that has no outcome for too long, so that the next charge is made.

    Raises NotFound, Conflict, Unavailable.
    """
    async with context.locked_by_id(Charge, charge_id) as (session, charge):
        if charge.state != ChargeState.FAILED and not is_stuck(charge, now_ms()):
            raise Conflict(f"only a failed charge can be retried; this one is {charge.state}")
        before = {"state": charge.state, "error": charge.error}
        charge.state, owner, target = ChargeState.VOID, charge.tenant_id, f"charge:{charge_id}"
        after = {"state": charge.state, "reason": reason}
        record(session, actor, "charge.retry", tenant_id=owner, target=target, before=before, after=after)
        enqueue_after_commit(session, COLLECT)
    return charge


def is_stuck(charge: Charge, at_ms: int) -> bool:
    """Whether a debit has no outcome for longer than Razorpay takes."""
    is_debit = charge.instrument == Instrument.MANDATE and charge.state == ChargeState.SUBMITTED
    return is_debit and at_ms > (charge.tried_ms or charge.created_ms) + _LONGEST_DEBIT_MS


def link_expiry_ms(context: BillingContext, at_ms: int) -> int:
    """The expiry of a link made now. Razorpay accepts 15 minutes to 6 months, by its own clock."""
    return at_ms + min(max(context.rules.link_expires_ms, 20 * 60_000), 180 * DAY_MS)
