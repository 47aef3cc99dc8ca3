"""Mandates: every one that waits for its authorisation or can be debited is refreshed, with its token."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from billing.context import BillingContext
from billing.mandates.sync import refresh_mandate
from billing.models import Mandate
from billing.models.states import MandateState
from billing.razorpay.errors import RazorpayRefused
from billing.reconciliation.report import RazorpayReport, for_each

_AT_RAZORPAY = (MandateState.SUBMITTED, MandateState.ACTIVE)


async def compare_mandates(context: BillingContext, found: RazorpayReport) -> None:
    """Refreshes the mandates that the customer or a bank may have changed. Raises RazorpayError, Unavailable."""
    async with context.database.session() as session:
        query = select(Mandate.tenant_id, Mandate.id).where(Mandate.state.in_(_AT_RAZORPAY))
        rows = (await session.execute(query)).all()
        found.count("mandates", await session.scalar(select(func.count()).select_from(Mandate)) or 0)

    async def refresh(key: Any) -> None:
        await _refresh(context, found, *key)

    await for_each(rows, refresh)


async def _refresh(context: BillingContext, found: RazorpayReport, tenant_id: UUID, mandate_id: UUID) -> None:
    before = await context.read(Mandate, tenant_id, mandate_id)
    try:
        await refresh_mandate(context, tenant_id, mandate_id)
    except RazorpayRefused as refused:
        found.leave("mandate", str(mandate_id), str(refused))
        return
    found.explain("mandate", str(mandate_id))
    after = await context.read(Mandate, tenant_id, mandate_id)
    if after.state != before.state:
        found.heal("mandate", str(mandate_id), f"{before.state} -> {after.state}")
