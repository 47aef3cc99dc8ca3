"""Closing findings whose cause is gone, kind by kind, from the rows that they are about.

An extra subscription, an extra add-on and a difference from Razorpay's records are closed by the code that finds them,
when it looks again: only Razorpay shows that they are gone. Postgres down: Unavailable.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, and_, case, cast, exists, func, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import (
    Bill,
    BillingFinding,
    BillingPeriod,
    Charge,
    Dispute,
    LedgerEntry,
    Mandate,
    Payment,
    Refund,
    Subscription,
    WebhookEvent,
)
from billing.models.bills import balance_sql
from billing.models.states import (
    TERMINAL,
    BillState,
    CancelState,
    ChargeState,
    EventState,
    LedgerEntryKind,
    RefundState,
)

_ENDED_DISPUTES = ("won", "closed")
_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


async def resolve_findings(session: AsyncSession, now_ms: int) -> None:
    """Closes the open findings of every kind whose condition holds."""
    kinds = set(await session.scalars(select(BillingFinding.kind).where(BillingFinding.closed_ms.is_(None)).distinct()))
    for kind, is_gone in _gone().items():
        if kind in kinds:
            of_kind = and_(BillingFinding.kind == kind, BillingFinding.closed_ms.is_(None))
            values = {"closed_ms": now_ms, "resolved": True}
            statement = update(BillingFinding).where(of_kind, is_gone).values(values)
            await session.execute(statement.execution_options(synchronize_session=False))


async def resolve_others(session: AsyncSession, kind: str, found: set[str], now_ms: int) -> None:
    """Closes the open findings of a kind whose keys were not found again by a search that is complete."""
    of_kind = and_(BillingFinding.kind == kind, BillingFinding.closed_ms.is_(None), BillingFinding.key.not_in(found))
    values = {"closed_ms": now_ms, "resolved": True}
    statement = update(BillingFinding).where(of_kind).values(values)
    await session.execute(statement.execution_options(synchronize_session=False))


def named_id(key: str) -> ColumnElement[UUID | None]:
    """The id that a finding's detail names; null if it isn't one. Typed, so that the row's index serves it."""
    return _id_in(_named(key))


@cache
def _gone() -> Mapping[str, ColumnElement[bool]]:
    """The condition of each kind, on a finding and what it names."""
    overpaid = func.greatest(-balance_sql(), 0)
    return {
        "bill_held": _one(Bill, "bill", Bill.state != BillState.HELD),
        "cancel_refused": exists().where(
            Subscription.tenant_id == BillingFinding.tenant_id,
            Subscription.id == _id_in(func.split_part(BillingFinding.key, ":", 2)),
            or_(
                Subscription.status.in_(TERMINAL),
                Subscription.cancel_state.is_(None),
                Subscription.cancel_state == CancelState.DONE,
            ),
        ),
        "charge_failed": _one(Charge, "charge_id", or_(Charge.state != ChargeState.FAILED, _is_settled_bill())),
        "charge_lost": _one(Charge, "charge_id", Charge.state != ChargeState.SUBMITTING),
        "close_failed": exists().where(
            BillingPeriod.tenant_id == BillingFinding.tenant_id,
            BillingPeriod.period_id == _named("period"),
            BillingPeriod.closed_ms > BillingFinding.seen_ms,
        ),
        "credit_unpaid": exists().where(
            Bill.tenant_id == BillingFinding.tenant_id,
            Bill.id == named_id("bill"),
            overpaid <= _paid_back() - func.coalesce(_sum_of(Payment.excess_paise, Payment.bill_id == Bill.id), 0),
        ),
        "debit_pending": _one(Charge, "charge_id", Charge.state != ChargeState.SUBMITTED),
        "dispute": exists().where(
            Dispute.razorpay_id == _named("dispute_id"),
            or_(
                Dispute.status.in_(_ENDED_DISPUTES),
                and_(Dispute.status == "lost", or_(_named("status") != "lost", not_(_is_owed_again()))),
            ),
        ),
        "extra_mandate": exists().where(
            Payment.razorpay_id == _named("payment_id"), Payment.refunded_paise >= Payment.amount_paise
        ),
        "mandate_not_ended": _one(Mandate, "mandate_id", Mandate.wanted_end.is_(None)),
        "payment_unexplained": exists().where(
            Payment.razorpay_id == _named("payment_id"),
            Payment.refunded_paise >= Payment.excess_paise,
            ~exists().where(
                Bill.tenant_id == Payment.tenant_id, Bill.id == Payment.bill_id, Bill.state == BillState.OPEN
            ),
        ),
        "payment_unplaced": exists().where(Payment.razorpay_id == _named("payment_id")),
        "refund_awaits_operator": _one(Refund, "refund_id", Refund.state != RefundState.AWAITING_OPERATOR),
        "refund_by_hand": exists().where(
            Payment.razorpay_id == _named("payment_id"),
            Bill.tenant_id == Payment.tenant_id,
            Bill.id == Payment.bill_id,
            Payment.refunded_paise <= Payment.excess_paise + overpaid,
        ),
        "refund_failed": or_(
            _one(Refund, "refund_id", Refund.state == RefundState.PROCESSED),
            exists().where(
                Refund.tenant_id == BillingFinding.tenant_id,
                Refund.cause.endswith(func.concat(":again:", _named("refund_id"))),
            ),
        ),
        "subscription_unknown": exists().where(
            Subscription.razorpay_id == _named("razorpay_id"), Subscription.fetched_ms > BillingFinding.seen_ms
        ),
        "webhook_parked": exists().where(
            WebhookEvent.event_id == _named("event_id"), WebhookEvent.state != EventState.PARKED
        ),
    }


def _named(key: str) -> ColumnElement[str]:
    named: ColumnElement[str] = BillingFinding.detail[key].astext
    return named


def _id_in(text: ColumnElement[str]) -> ColumnElement[UUID | None]:
    """The text as an id; null instead of an error, which would stop the duty for all findings."""
    return case((text.regexp_match(_UUID), cast(text, Uuid)))


def _one(table: Any, key: str, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether the row that the finding names is so. Every finding of these kinds is recorded with its tenant."""
    return exists().where(table.tenant_id == BillingFinding.tenant_id, table.id == named_id(key), condition)


def _is_settled_bill() -> ColumnElement[bool]:
    return exists().where(Bill.tenant_id == Charge.tenant_id, Bill.id == Charge.bill_id, Bill.state != BillState.OPEN)


def _sum_of(paise: Any, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.sum(paise)).where(Payment.tenant_id == Bill.tenant_id, *conditions).scalar_subquery()


def _paid_back() -> ColumnElement[int]:
    """Processed refunds of a bill's payments."""
    is_its = and_(Refund.tenant_id == Payment.tenant_id, Refund.payment_id == Payment.razorpay_id)
    total = _sum_of(Refund.amount_paise, is_its, Payment.bill_id == Bill.id, Refund.state == RefundState.PROCESSED)
    return func.coalesce(total, 0)


def _is_owed_again() -> ColumnElement[bool]:
    """Whether a bill is open that the lost dispute reopened."""
    return exists().where(
        LedgerEntry.tenant_id == Dispute.tenant_id,
        LedgerEntry.payment_id == Dispute.payment_id,
        LedgerEntry.kind == LedgerEntryKind.DISPUTE,
        Bill.tenant_id == LedgerEntry.tenant_id,
        Bill.id == LedgerEntry.bill_id,
        Bill.state == BillState.OPEN,
    )
