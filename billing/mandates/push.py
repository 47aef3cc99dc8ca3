"""Pushing mandates to Razorpay: registration, cancellation, and the poll for webhooks that were lost.

Only our notes and the receipt make a registration unique at Razorpay. After a lost answer it is searched by its
receipt, as long as the list may lag, and only then created again; a first one that turns up later is an extra
(`billing.mandates.sync`). A replaced mandate is cancelled once no debit on it is under way. Razorpay down:
the wish waits for the next run.
"""

from collections.abc import Awaitable
from functools import partial
from uuid import UUID

from sqlalchemy import Select, and_, or_, select

from billing.catalogue.profiles import get_profile
from billing.context import BillingContext
from billing.findings import record_finding
from billing.mandates.mandates import close
from billing.mandates.sync import MANDATE_NOTE, REPLACED, adopt_registration, drop_extra, refresh_mandate
from billing.models import Charge, Mandate
from billing.models.states import LIVE, UNANSWERED, MandateState
from billing.razorpay.errors import RazorpayInDoubt, RazorpayRefused
from billing.razorpay.payer_names import payer
from billing.writes import MAX_ERROR, advance_all, claim, release, submit
from core.clock import DAY_MS, now_ms
from core.logs import get_logger

LIST_LAG_MS = 15 * 60_000
"""Razorpay's list may lag this long; a registration missing from it after that doesn't exist."""
_LASTS_MS = 10 * 365 * DAY_MS
"""The life of a mandate; other terms need another mandate."""
_NAMELESS = "Customer"
"""For a legal name that Razorpay doesn't accept: a registration needs a name."""
_POLL_WAITING_MS = 15 * 60_000
_POLL_ACTIVE_MS = DAY_MS
"""Poll intervals, in case a webhook is lost."""

log = get_logger(__name__)


async def push_mandates(context: BillingContext) -> None:
    """The duty MANDATES: makes every due step of every mandate. Raises Unavailable."""
    await advance_all(context, _due(now_ms()), push_mandate, Mandate)


async def push_mandate(context: BillingContext, tenant_id: UUID, mandate_id: UUID) -> None:
    """Makes every due step of one mandate. Raises RazorpayError, Unavailable."""
    row = await context.read(Mandate, tenant_id, mandate_id)
    if row.state == MandateState.SUBMITTING:
        await _find_created(context, row)
        row = await context.read(Mandate, tenant_id, mandate_id)
    if row.state == MandateState.INTENDED:
        await _create(context, row)
        row = await context.read(Mandate, tenant_id, mandate_id)
    if row.razorpay_id is None:
        return
    if row.wanted_end is not None:
        await _end(context, row)
    elif row.state in {MandateState.SUBMITTED, MandateState.ACTIVE} and _is_stale(row, now_ms()):
        await refresh_mandate(context, tenant_id, mandate_id)


def notes_of(row: Mandate) -> dict[str, str]:
    """The notes of our registrations at Razorpay."""
    return {"tenant_id": str(row.tenant_id), MANDATE_NOTE: str(row.id)}


def _due(at_ms: int) -> Select[UUID, UUID]:
    waiting = and_(Mandate.state == MandateState.SUBMITTED, Mandate.checked_ms < at_ms - _POLL_WAITING_MS)
    active = and_(Mandate.state == MandateState.ACTIVE, Mandate.checked_ms < at_ms - _POLL_ACTIVE_MS)
    return (
        select(Mandate.tenant_id, Mandate.id)
        .where(or_(Mandate.state.in_(UNANSWERED), Mandate.wanted_end.is_not(None), waiting, active))
        .order_by(Mandate.id)
    )


def _is_stale(row: Mandate, at_ms: int) -> bool:
    every_ms = _POLL_ACTIVE_MS if row.state == MandateState.ACTIVE else _POLL_WAITING_MS
    return row.checked_ms is None or row.checked_ms < at_ms - every_ms


async def _create(context: BillingContext, row: Mandate) -> None:
    """Creates the registration. A refusal voids the wish, since repeating the call would be refused again."""
    async with context.locked(row) as (session, fresh):
        if fresh.wanted_end is not None:
            _void(fresh, fresh.wanted_end)
            return
        if not claim(fresh):
            return
        profile = await get_profile(session, row.tenant_id)
    at_ms = now_ms()
    named = payer({"legal_name": profile.legal_name, "email": profile.email, "contact": fresh.contact})
    await submit(
        partial(
            context.razorpay.create_registration,
            method=fresh.method,
            max_paise=fresh.max_paise,
            token_expires_at=(at_ms + _LASTS_MS) // 1000,
            expire_by=(at_ms + min(context.rules.link_expires_ms, 180 * DAY_MS)) // 1000,
            receipt=fresh.reference,
            description="Usage beyond the plan's allowance, debited when a bill is issued",
            customer={"name": _NAMELESS} | named,
            notes=notes_of(fresh),
        ),
        apply=partial(adopt_registration, context, row.tenant_id, row.id),
        on_refused=partial(_refuse, context, fresh),
        on_error=partial(release, context, fresh),
    )


async def _refuse(context: BillingContext, row: Mandate, refused: RazorpayRefused) -> None:
    """Voids a wish that Razorpay refuses. A refusal of our key isn't the wish's fault. `row`: as it was claimed."""
    if not refused.is_invalid_request:
        await release(context, row, refused)
        raise refused
    async with context.locked(row) as (_, fresh):
        if fresh.state in UNANSWERED:
            _void(fresh, str(refused))


async def _find_created(context: BillingContext, row: Mandate) -> None:
    """Adopts the registration that an unanswered call created; of several, a paid one, else the oldest."""
    tried_ms = row.tried_ms or row.created_ms
    found = await context.razorpay.find_registrations(row.reference)
    if found:
        first, *others = sorted(found, key=lambda one: (one.payment_id is None, one.created_at, one.id))
        await adopt_registration(context, row.tenant_id, row.id, first)
        for extra in others:
            await drop_extra(context, row, extra)
    elif now_ms() > tried_ms + LIST_LAG_MS:
        await release(context, row, "the call had no effect")


def _void(row: Mandate, reason: str) -> None:
    row.error, row.wanted_end = reason[:MAX_ERROR], None
    close(row, MandateState.VOID, reason[:MAX_ERROR], now_ms())


async def _end(context: BillingContext, row: Mandate) -> None:
    """Cancels a registration, or an authorised mandate, at Razorpay; then applies what a fetch says."""
    if row.token_id is None or row.customer_id is None:
        if row.state == MandateState.SUBMITTED:
            await _try(context.razorpay.cancel_registration(str(row.razorpay_id)), row)
    elif row.wanted_end == REPLACED and await _is_debited(context, row):
        return
    else:
        await _try(context.razorpay.cancel_token(row.customer_id, row.token_id), row)
    await refresh_mandate(context, row.tenant_id, row.id)
    async with context.locked(row) as (session, fresh):
        key = f"mandate_not_ended:{row.id}"
        if fresh.wanted_end is not None and now_ms() > (fresh.ended_ms or fresh.created_ms) + DAY_MS:
            detail = {"mandate_id": str(row.id), "token_id": row.token_id, "why": fresh.wanted_end}
            await record_finding(session, key, "mandate_not_ended", tenant_id=row.tenant_id, **detail)


async def _try(call: Awaitable[object], row: Mandate) -> None:
    """Makes a call whose effect is fetched next."""
    try:
        await call
    except (RazorpayRefused, RazorpayInDoubt) as error:
        log.info("mandate_not_ended", mandate=str(row.id), error=str(error))


async def _is_debited(context: BillingContext, row: Mandate) -> bool:
    """Whether a debit on the mandate is under way."""
    query = select(Charge.id).where(
        Charge.tenant_id == row.tenant_id, Charge.mandate_id == row.id, Charge.state.in_(LIVE)
    )
    async with context.database.session() as session:
        return await session.scalar(query.limit(1)) is not None
