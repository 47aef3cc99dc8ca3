"""A tenant's mandates: the one to authorise, the active one, and the wishes to have one and to end it.

Each wish is stored under the tenant's lock, whether or not Razorpay is up; `billing.mandates.push` sends it. A tenant
has at most one mandate that awaits authorisation, and asking twice returns the first. An active one serves until the
next is authorised.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.catalogue.profiles import get_profile, supply_for
from billing.catalogue.razorpay_plans import MANDATE_PAISE
from billing.context import MANDATES, BillingContext, enqueue_after_commit
from billing.gst.tax import Supply, gross_of
from billing.models import Mandate, Plan, Subscription
from billing.models.bills import SMALLEST_PAISE
from billing.models.states import MANDATE_OPEN, TERMINAL, MandateState, SubscriptionState
from billing.rating.overage import PastAllowance
from core.clock import now_ms
from core.errors import Conflict, Invalid, NotFound
from core.ids import uuid7
from core.tenancy.audit import Actor, record
from core.tenancy.models import Tenant

METHODS = ("upi", "card")
"""Payment methods of a mandate for debits of any amount at any time."""


async def waiting_mandate(session: AsyncSession, tenant_id: UUID) -> Mandate | None:
    """The mandate that awaits authorisation."""
    query = select(Mandate).where(Mandate.tenant_id == tenant_id, Mandate.state.in_(MANDATE_OPEN))
    return (await session.scalars(query)).one_or_none()


async def active_mandate(session: AsyncSession, tenant_id: UUID) -> Mandate | None:
    """The mandate that is authorised; the customer may have paused it."""
    query = select(Mandate).where(Mandate.tenant_id == tenant_id, Mandate.state == MandateState.ACTIVE)
    return (await session.scalars(query)).one_or_none()


async def mandate_for(session: AsyncSession, tenant_id: UUID, paise: int) -> Mandate | None:
    """The mandate that can be debited this amount without the customer's approval; None if there is none."""
    mandate = await active_mandate(session, tenant_id)
    return mandate if mandate is not None and may_debit(mandate, paise, now_ms()) else None


def may_debit(mandate: Mandate, paise: int, at_ms: int) -> bool:
    """Whether the mandate allows this debit, and no rule asks for the customer's approval of it."""
    is_usable = mandate.state == MandateState.ACTIVE and mandate.paused_ms is None and mandate.token_id is not None
    is_expired = mandate.expires_ms is not None and mandate.expires_ms <= at_ms
    return is_usable and not is_expired and paise <= min(mandate.max_paise, MANDATE_PAISE)


async def allowed_paise(session: AsyncSession, tenant_id: UUID) -> int:
    """The most of one debit, with tax, that the tenant's plans can need; 0 if none of them bills usage.

    Raises Invalid for a tenant that can't be billed yet.
    """
    supply = await supply_for(session, tenant_id)
    return max((_needed(plan, supply) for plan in await _plans(session, tenant_id)), default=0)


async def register_mandate(
    context: BillingContext,
    actor: Actor,
    tenant_id: UUID,
    *,
    method: str,
    contact: str | None = None,
    max_paise: int | None = None,
) -> Mandate:
    """Stores the wish for a mandate. `contact`: a phone number, the billing profile's unless given.

    `max_paise`: of one debit, with tax; the most that the plan can need unless given. Raises Invalid, Conflict.
    """
    if method not in METHODS:
        raise Invalid(f"a mandate is by one of {', '.join(METHODS)}")
    async with context.tenant_transaction(tenant_id) as session:
        waiting = await waiting_mandate(session, tenant_id)
        if waiting is not None:
            if waiting.method == method and waiting.wanted_end is None:
                return waiting
            raise Conflict("another mandate awaits authorisation; cancel it first")
        most_paise = await allowed_paise(session, tenant_id)
        if most_paise < SMALLEST_PAISE:
            raise Conflict("your plan bills no usage, so there is nothing to debit")
        if max_paise is not None and not SMALLEST_PAISE <= max_paise <= most_paise:
            raise Invalid(f"a debit's maximum is {SMALLEST_PAISE} to {most_paise} paise on your plan")
        known = contact or (await get_profile(session, tenant_id)).contact
        if known is None:
            raise Invalid("a mandate needs a phone number; add one to the billing profile")
        at_ms = now_ms()
        row = Mandate(
            tenant_id=tenant_id,
            id=(mandate_id := uuid7(at_ms)),
            state=MandateState.INTENDED,
            method=method,
            max_paise=max_paise or most_paise,
            reference=f"mandate-{mandate_id.hex}",
            contact=known,
            created_ms=at_ms,
        )
        session.add(row)
        audit(session, actor, "intend", row, {"method": method, "max_paise": row.max_paise})
        # The caller pushes it now, since it needs the link. A worker woken here would race that call.
    return row


async def end_mandate(context: BillingContext, actor: Actor, tenant_id: UUID, *, reason: str) -> Mandate:
    """Cancels the mandate that awaits authorisation, or else the active one: no debit is begun any more.

    A bill whose debit is under way is debited, or gets a payment link. Raises NotFound.
    """
    async with context.tenant_transaction(tenant_id) as session:
        row = await waiting_mandate(session, tenant_id) or await active_mandate(session, tenant_id)
        if row is None:
            raise NotFound("there is no mandate")
        if row.state == MandateState.INTENDED:
            row.state, row.ended_ms, row.end_reason = MandateState.VOID, now_ms(), reason
        elif row.state == MandateState.ACTIVE:
            close(row, MandateState.ENDED, reason, now_ms())
            row.wanted_end = reason
        else:
            row.wanted_end = row.wanted_end or reason
        audit(session, actor, "end", row, {"reason": reason})
        enqueue_after_commit(session, MANDATES)
    return row


def close(row: Mandate, state: str, reason: str, at_ms: int) -> None:
    """Ends a mandate in our books. `wanted_end` says whether it also has to be ended at Razorpay."""
    row.state, row.ended_ms, row.end_reason = state, at_ms, reason


def audit(session: AsyncSession, actor: Actor, action: str, row: Mandate, after: dict[str, Any]) -> None:
    """Adds the entry of a change to the audit log."""
    record(session, actor, f"mandate.{action}", tenant_id=row.tenant_id, target=f"mandate:{row.id}", after=after)


async def _plans(session: AsyncSession, tenant_id: UUID) -> list[Plan]:
    """The plans of the tenant's subscriptions, those to authorise too, and its own plan."""
    of_subscription = (
        select(Plan)
        .join(Subscription, (Subscription.plan_code == Plan.code) & (Subscription.plan_version == Plan.version))
        .where(
            Subscription.tenant_id == tenant_id,
            Subscription.state != SubscriptionState.VOID,
            or_(Subscription.status.is_(None), Subscription.status.not_in(TERMINAL)),
        )
    )
    own = (
        select(Plan)
        .join(Tenant, (Tenant.plan_code == Plan.code) & (Tenant.plan_version == Plan.version))
        .where(Tenant.id == tenant_id)
    )
    return [*await session.scalars(of_subscription), *await session.scalars(own)]


def _needed(plan: Plan, supply: Supply) -> int:
    """The most that one bill or top-up of the plan can need; above Rs 15,000 no debit is made."""
    match PastAllowance(plan.past_allowance):
        case PastAllowance.BLOCK:
            return 0
        case PastAllowance.PREPAID:
            return MANDATE_PAISE
        case PastAllowance.BILL:
            return min(MANDATE_PAISE, gross_of(plan.ceiling_paise or 0, supply))
