"""Amounts below the smallest payment (a rupee), which the tenant's next bill for usage collects.

Usage that was never billed, because its document was waived, becomes a line of that bill and is taxed with it. The
rest of a numbered bill is debt, taxed already: it moves to that bill below its total. Everything runs under the
tenant's lock.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.ledger.balances import DEBTS
from billing.ledger.movements import remainder_carried
from billing.models import Bill
from billing.models.bills import SMALLEST_PAISE, balance_of, balance_sql
from billing.models.states import BillKind, BillState

_DOCUMENTS = (BillKind.OVERAGE, BillKind.CREDIT_NOTE)


async def waived_documents(session: AsyncSession, tenant_id: UUID, but_period: str) -> Sequence[Bill]:
    """Waived drafts of other periods, oldest first, whose amounts no bill has."""
    query = (
        select(Bill)
        .where(Bill.tenant_id == tenant_id, Bill.period_id != but_period, Bill.kind.in_(_DOCUMENTS))
        .where(Bill.state == BillState.WAIVED, Bill.number.is_(None))
        .order_by(Bill.id)
    )
    return (await session.scalars(query)).all()


def carried_lines(waived: Sequence[Bill]) -> list[dict[str, Any]]:
    """A line for each of them."""
    return [
        {"kind": "carried", "text": f"Usage of {bill.period_id}, not billed yet", "amount_paise": bill.taxable_paise}
        for bill in waived
    ]


def take_over(waived: Sequence[Bill], bill: Bill) -> None:
    """Drops the waived drafts, whose amounts this bill has. They count as billed in their own periods."""
    for one in waived:
        one.state, one.reason = BillState.VOID, f"carried to {bill.number}"


async def collect_remainders(session: AsyncSession, bill: Bill, now_ms: int) -> None:
    """Moves what is left of the tenant's settled bills to this one, which was just numbered."""
    query = (
        select(Bill)
        .where(Bill.tenant_id == bill.tenant_id, Bill.id != bill.id, Bill.kind.in_(DEBTS), Bill.number.is_not(None))
        .where(Bill.state.in_((BillState.PAID, BillState.CREDITED, BillState.WAIVED)))
        .where(balance_sql() > 0, balance_sql() < SMALLEST_PAISE)
        .order_by(Bill.id)
    )
    for source in await session.scalars(query):
        paise = balance_of(source)
        source.carried_paise += paise
        bill.carried_paise -= paise
        await remainder_carried(session, source, bill, paise, now_ms)
    await session.flush()
