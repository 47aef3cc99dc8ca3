"""The duty that collects open bills: makes the attempts that are missing, drives those that live, sends the refunds.

A bill has one live attempt at the most (an index says so), and the next only after the last is fetched as gone. What
fails is logged and tried again at the next run; one charge's failure is no other's. A store down: Unavailable.
"""

from sqlalchemy import select

from billing.collection.attempts import intend, needs_care, needs_charge
from billing.collection.charges import drive_one
from billing.context import BillingContext
from billing.models import Bill, Charge
from billing.payments import refunds
from billing.razorpay.errors import RazorpayError
from core.clock import now_ms
from core.errors import NakaError
from core.logs import get_logger

log = get_logger(__name__)


async def collect(context: BillingContext) -> None:
    """The duty COLLECT: makes the charges that are missing, drives those that live, and the refunds."""
    async with context.database.session() as session:
        bills = (await session.execute(select(Bill.tenant_id, Bill.id).where(needs_charge()).order_by(Bill.id))).all()
    for tenant_id, bill_id in bills:
        await intend(context, tenant_id, bill_id)
    query = (
        select(Charge.tenant_id, Charge.id)
        .join(Bill, (Bill.tenant_id == Charge.tenant_id) & (Bill.id == Charge.bill_id))
        .where(needs_care(now_ms()))
        .order_by(Charge.id)
    )
    async with context.database.session() as session:
        live = (await session.execute(query)).all()
    for tenant_id, charge_id in live:
        try:
            await drive_one(context, tenant_id, charge_id)
        except (RazorpayError, NakaError) as error:
            log.warning("charge_waits", charge=str(charge_id), error=str(error))
        except Exception:
            log.exception("charge_fails", charge=str(charge_id))
    await refunds.drive(context)
