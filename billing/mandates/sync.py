"""Synchronisation of a mandate from Razorpay: its registration, the authorisation payment, and its token.

Only a fetch that began after the last applied one is applied. An ended mandate never becomes active again. The payment
that authorised it is real money, which no bill explains: it is given back. Fetches run outside of any transaction.
Razorpay down: RazorpayError; Postgres down: Unavailable; either way nothing was applied.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import COLLECT, MANDATES, BillingContext, enqueue_after_commit
from billing.findings import record_finding, resolve_finding
from billing.ledger.movements import payment_received
from billing.mandates.mandates import active_mandate, close
from billing.models import Mandate
from billing.models.states import CAPTURED, UNANSWERED, MandateState
from billing.payments.payments import record_payment
from billing.payments.refunds import request_refund
from billing.razorpay import entities
from billing.razorpay.errors import RazorpayInDoubt, RazorpayRefused
from billing.writes import MAX_ERROR
from core.clock import now_ms
from core.errors import Unavailable
from core.logs import get_logger

MANDATE_NOTE = "naka_mandate"
"""The note of our registrations, and so of their payments, that names the mandate."""
REPLACED = "a newer mandate replaces it"
_GONE = "it was removed at Razorpay"
_EXTRA = "it was authorised after it was given up"
_DEAD_LINK = frozenset({"cancelled", "expired"})
_ROUNDS = 5

log = get_logger(__name__)


class MandateOvertaken(Unavailable):
    """Concurrent fetches were applied during every round; try again later."""


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Razorpay's answers. `is_gone`: it doesn't know the token any more."""

    registration: entities.Registration | None
    payment: entities.Payment | None
    token: entities.Token | None
    is_gone: bool


async def refresh_mandate(context: BillingContext, tenant_id: UUID, mandate_id: UUID) -> None:
    """Fetches a mandate and applies it. Raises RazorpayError, Unavailable."""
    for _ in range(_ROUNDS):
        row = await context.read(Mandate, tenant_id, mandate_id)
        if row.razorpay_id is None:
            return  # not created yet
        found = await _fetch(context, row)
        async with context.locked(row) as (session, fresh):
            if fresh.checked_ms == row.checked_ms and fresh.state == row.state:
                fresh.checked_ms = max(now_ms(), (row.checked_ms or 0) + 1)
                await _apply(session, context, fresh, found)
                return
    raise MandateOvertaken("other processes are updating this mandate")


async def refresh_token(context: BillingContext, token_id: str) -> UUID | None:
    """Refreshes the mandate of a token and returns its tenant; None if it isn't known.

    Razorpay doesn't say whose a token is: one of ours becomes known with the payment that authorised it.
    """
    row = await _find(context, Mandate.token_id == token_id)
    if row is None:
        return None
    await refresh_mandate(context, row.tenant_id, row.id)
    return row.tenant_id


async def refresh_registration(context: BillingContext, registration_id: str) -> UUID | None:
    """Refreshes the mandate of a registration link and returns its tenant; None if it isn't ours.

    A link that a lost answer had created is adopted, or given up if its mandate has another.
    """
    row = await _find(context, Mandate.razorpay_id == registration_id)
    if row is not None:
        await refresh_mandate(context, row.tenant_id, row.id)
        return row.tenant_id
    registration = await context.razorpay.fetch_registration(registration_id)
    try:
        mandate_id = UUID(registration.notes[MANDATE_NOTE])
    except (KeyError, ValueError):
        return None
    row = await _find(context, Mandate.id == mandate_id)
    if row is None or str(row.tenant_id) != registration.notes.get("tenant_id"):
        return None
    if row.razorpay_id is None and row.state in UNANSWERED:
        await adopt_registration(context, row.tenant_id, row.id, registration)
    else:
        await drop_extra(context, row, registration)
    return row.tenant_id


async def refresh_mandate_by_payment(context: BillingContext, payment: entities.Payment) -> UUID | None:
    """Refreshes the mandate that a payment authorised and returns its tenant; None if it isn't one of ours."""
    if payment.invoice_id is not None:
        return await refresh_registration(context, payment.invoice_id)
    if payment.order_id is None:
        return None
    row = await _find(context, Mandate.order_id == payment.order_id)
    if row is None:
        return None
    await refresh_mandate(context, row.tenant_id, row.id)
    return row.tenant_id


async def adopt_registration(
    context: BillingContext, tenant_id: UUID, mandate_id: UUID, registration: entities.Registration
) -> None:
    """Makes it the registration of this mandate, or gives it up if the mandate has another already."""
    async with context.tenant_transaction(tenant_id) as session:
        row = await session.get_one(Mandate, (tenant_id, mandate_id))
        if row.razorpay_id is None and row.state in UNANSWERED:
            row.state, row.razorpay_id, row.error = MandateState.SUBMITTED, registration.id, None
            row.checked_ms = now_ms()
            _copy(row, registration)
            if row.wanted_end is not None:
                enqueue_after_commit(session, MANDATES)
        known = row.razorpay_id
    if known != registration.id:
        await drop_extra(context, row, registration)
    elif registration.payment_id is not None:
        await refresh_mandate(context, tenant_id, mandate_id)


async def drop_extra(context: BillingContext, row: Mandate, extra: entities.Registration) -> None:
    """Cancels a second registration, or the mandate it made, and gives its payment back. Idempotent."""
    if extra.payment_id is None and extra.status not in _DEAD_LINK:
        try:
            await context.razorpay.cancel_registration(extra.id)
        except (RazorpayRefused, RazorpayInDoubt) as error:
            log.info("extra_registration_not_cancelled", registration=extra.id, error=str(error))
        extra = await context.razorpay.fetch_registration(extra.id)
    payment = await _payment_of(context, extra)
    if payment is not None and payment.token_id is not None and payment.token_id != row.token_id:
        try:
            await context.razorpay.cancel_token(payment.customer_id or extra.customer_id or "", payment.token_id)
        except (RazorpayRefused, RazorpayInDoubt) as error:
            log.info("extra_token_not_cancelled", token=payment.token_id, error=str(error))
    async with context.tenant_transaction(row.tenant_id) as session:
        if payment is not None:
            await _give_back(session, context, row.tenant_id, payment, at_once=True)
        key, payment_id = f"extra_mandate:{extra.id}", None if payment is None else payment.id
        if payment is None and extra.status in _DEAD_LINK:
            await resolve_finding(session, key, now_ms())  # nobody can authorise it any more
        else:
            detail = {"registration_id": extra.id, "mandate_id": str(row.id), "payment_id": payment_id}
            await record_finding(session, key, "extra_mandate", tenant_id=row.tenant_id, **detail)


async def _find(context: BillingContext, condition: ColumnElement[bool]) -> Mandate | None:
    async with context.database.session() as session:
        return (await session.scalars(select(Mandate).where(condition))).one_or_none()


async def _fetch(context: BillingContext, row: Mandate) -> _Fetched:
    """The registration and its payment until the mandate was active, and the token."""
    registration = payment = None
    token_id, customer_id = row.token_id, row.customer_id
    if row.authorised_ms is None:
        registration = await context.razorpay.fetch_registration(str(row.razorpay_id))
        payment = await _payment_of(context, registration)
        if payment is not None:
            token_id, customer_id = payment.token_id or token_id, payment.customer_id or registration.customer_id
    if token_id is None or customer_id is None:
        return _Fetched(registration, payment, None, is_gone=False)
    try:
        token = await context.razorpay.fetch_token(customer_id, token_id)
    except RazorpayRefused as refused:
        if not refused.is_unknown_id:
            raise
        return _Fetched(registration, payment, None, is_gone=True)
    return _Fetched(registration, payment, token, is_gone=False)


async def _payment_of(context: BillingContext, registration: entities.Registration) -> entities.Payment | None:
    """The payment that authorised it. One on a link that was closed meanwhile shows only in the link's order."""
    if registration.payment_id is not None:
        return await context.razorpay.fetch_payment(registration.payment_id)
    if registration.order_id is None or registration.status not in _DEAD_LINK:
        return None
    paid = [one for one in await context.razorpay.payments_of_order(registration.order_id) if one.status in CAPTURED]
    return paid[-1] if paid else None


async def _apply(session: AsyncSession, context: BillingContext, row: Mandate, found: _Fetched) -> None:
    """Applies a fetch to the mandate, under the tenant's lock."""
    if found.registration is not None:
        _copy(row, found.registration)
    at_ms = now_ms()
    token = found.token
    status = token.status if token is not None else "cancelled" if found.is_gone else ""
    if found.payment is not None:
        row.token_id = found.payment.token_id or row.token_id
        row.customer_id = found.payment.customer_id or row.customer_id
        at_once = status in {"confirmed", "cancelled", "paused"}  # Razorpay itself refunds it if the bank rejects
        await _give_back(session, context, row.tenant_id, found.payment, at_once=at_once)
    if token is not None and token.expired_at:
        row.expires_ms = token.expired_at * 1000
    match row.state:
        case MandateState.SUBMITTED:
            await _apply_to_waiting(session, row, found, status, at_ms)
        case MandateState.ACTIVE:
            _apply_to_active(session, row, status, at_ms)
        case _ if row.token_id is not None:  # ended, or given up before it was authorised after all
            if status in {"cancelled", "rejected"}:
                row.wanted_end = None
            elif row.state == MandateState.VOID:
                row.wanted_end = row.wanted_end or _EXTRA
                enqueue_after_commit(session, MANDATES)
        case _:
            pass


async def _apply_to_waiting(session: AsyncSession, row: Mandate, found: _Fetched, status: str, at_ms: int) -> None:
    """Activates an authorised mandate, which replaces the active one; voids one that can't be authorised any more."""
    is_paid = found.payment is not None and found.payment.status in CAPTURED
    if status == "confirmed" and not is_paid:
        return  # the payment is given back before the mandate is used, so that no later fetch has to see it
    if status == "confirmed":
        row.authorised_ms = at_ms
    if status == "confirmed" and row.wanted_end is not None:
        close(row, MandateState.ENDED, row.wanted_end, at_ms)
        enqueue_after_commit(session, MANDATES)
    elif status == "confirmed":
        old = await active_mandate(session, row.tenant_id)
        if old is not None:
            close(old, MandateState.ENDED, REPLACED, at_ms)
            old.wanted_end = REPLACED
            await session.flush()  # the index allows one active mandate
        row.state, row.error = MandateState.ACTIVE, None
        enqueue_after_commit(session, COLLECT, MANDATES)
    elif status in {"rejected", "cancelled"}:
        details = (found.token.recurring_details or {}) if found.token is not None else {}
        _void(row, str(details.get("failure_reason") or f"the mandate was {status}"), at_ms)
    elif found.registration is not None and found.registration.status in _DEAD_LINK and found.payment is None:
        _void(row, row.wanted_end or f"its link is {found.registration.status}", at_ms)


def _apply_to_active(session: AsyncSession, row: Mandate, status: str, at_ms: int) -> None:
    if status == "cancelled":
        close(row, MandateState.ENDED, _GONE, at_ms)
    elif row.expires_ms is not None and row.expires_ms <= at_ms:
        close(row, MandateState.ENDED, "it has expired", at_ms)
    elif status == "paused":
        row.paused_ms = row.paused_ms or at_ms
    elif status == "confirmed":
        row.paused_ms = None
    if row.state != MandateState.ACTIVE or row.paused_ms is not None:
        enqueue_after_commit(session, COLLECT)


async def _give_back(
    session: AsyncSession, context: BillingContext, tenant_id: UUID, payment: entities.Payment, *, at_once: bool
) -> None:
    """Records the authorisation payment, and with `at_once` requests its refund. Idempotent."""
    if payment.status not in CAPTURED:
        return
    row, _ = await record_payment(session, tenant_id, payment)
    row.excess_paise = payment.amount
    await session.flush()
    await payment_received(session, row, (), now_ms())
    left_paise = payment.amount - payment.amount_refunded
    if at_once and left_paise > 0:
        await request_refund(session, context, tenant_id, payment.id, left_paise, f"mandate:{payment.id}")


def _copy(row: Mandate, registration: entities.Registration) -> None:
    row.short_url = registration.short_url or row.short_url
    row.order_id = registration.order_id or row.order_id
    row.customer_id = registration.customer_id or row.customer_id


def _void(row: Mandate, reason: str, at_ms: int) -> None:
    row.error, row.wanted_end = reason[:MAX_ERROR], None
    close(row, MandateState.VOID, reason[:MAX_ERROR], at_ms)
