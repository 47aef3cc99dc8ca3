"""Subscriptions: those at Razorpay that we don't know, those that differ, and calls whose answers were lost.

One that can still be charged, or ended lately, is always refreshed, with its invoices and their payments. So a payment
of an invoice that is unknown afterwards belongs to another product.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select

from billing.context import BillingContext
from billing.models import Subscription
from billing.models.states import TERMINAL, SubscriptionState
from billing.razorpay.entities import Subscription as RazorpaySubscription
from billing.razorpay.errors import RazorpayRefused
from billing.reconciliation.report import RazorpayReport, for_each
from billing.subscriptions.orphans import adopt_or_cancel
from billing.subscriptions.push import push_subscription
from billing.subscriptions.sync import refresh_subscription


async def compare_subscriptions(context: BillingContext, found: RazorpayReport, since_ms: int) -> None:
    """Compares all that may be charged and all created since. Raises RazorpayError, Unavailable."""
    async for page in context.razorpay.subscription_pages(since=since_ms // 1000):
        await _listed(context, found, page, since_ms)
    known = Subscription.razorpay_id.is_not(None)
    async with context.database.session() as session:
        rows = (
            await session.execute(select(Subscription.tenant_id, Subscription.id).where(known, _lives(since_ms)))
        ).all()
        found.count("subscriptions", await session.scalar(select(func.count(Subscription.razorpay_id))) or 0)

    async def refresh(key: Any) -> None:
        await _refresh(context, found, *key)

    await for_each(rows, refresh)
    await _lost_intents(context, found)


def _lives(since_ms: int) -> ColumnElement[bool]:
    """May be charged, or has ended since: a payment may have come late."""
    return or_(
        Subscription.status.is_(None),
        Subscription.status.not_in(TERMINAL),
        Subscription.ended_ms >= since_ms,
    )


async def _listed(
    context: BillingContext, found: RazorpayReport, page: list[RazorpaySubscription], since_ms: int
) -> None:
    """Adopts or cancels unknown ones that are ours, and refreshes ended ones that differ."""
    async with context.database.session() as session:
        query = select(Subscription).where(Subscription.razorpay_id.in_([one.id for one in page]))
        known = {row.razorpay_id: row for row in await session.scalars(query)}
    for one in page:
        row = known.get(one.id)
        if row is None:
            if await adopt_or_cancel(context, one):
                found.heal("subscription", one.id, "not known to us")
            else:
                found.foreign += 1
        elif row.status in TERMINAL and (row.ended_ms or 0) < since_ms and _listed_state(one) != _stored_state(row):
            await _refresh(context, found, row.tenant_id, row.id)


async def _refresh(context: BillingContext, found: RazorpayReport, tenant_id: UUID, row_id: UUID) -> None:
    row = await context.read(Subscription, tenant_id, row_id)
    key = row.razorpay_id or ""
    before = _stored_state(row)
    try:
        await refresh_subscription(context, tenant_id, row_id)
    except RazorpayRefused as refused:
        found.leave("subscription", key, str(refused))
        return
    found.explain("subscription", key)
    after = _stored_state(await context.read(Subscription, tenant_id, row_id))
    if after != before:
        found.heal("subscription", key, f"{before} -> {after}")


async def _lost_intents(context: BillingContext, found: RazorpayReport) -> None:
    """Continues calls whose answers were lost."""
    query = select(Subscription.tenant_id, Subscription.id).where(Subscription.state == SubscriptionState.SUBMITTING)
    async with context.database.session() as session:
        rows = (await session.execute(query)).all()
    for tenant_id, row_id in rows:
        await push_subscription(context, tenant_id, row_id)
        found.count("intents")


def _listed_state(one: RazorpaySubscription) -> tuple[Any, ...]:
    return one.status, one.paid_count, None if one.current_end is None else one.current_end * 1000


def _stored_state(row: Subscription) -> tuple[Any, ...]:
    return row.status, row.paid_count, row.current_end_ms
