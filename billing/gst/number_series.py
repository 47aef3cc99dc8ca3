"""Assignment of the next number of a series, in the transaction that commits the numbered document.

The series' row stays locked to the end of the transaction, and a rollback returns the number: no gap, no repeat. Lock
order: the tenant's lock first (`tenant_transaction`).
"""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.gst.invoice_numbers import DocumentNumber, Series, next_number, parse_number
from billing.models import DocumentSeries

_NONE_YET = ""


async def take_number(session: AsyncSession, series: Series, now_ms: int) -> DocumentNumber:
    """Takes the next number of the series, by the Indian date. Raises WrongNumber if the clock went back a year."""
    await session.execute(insert(DocumentSeries).values(series=series, last=_NONE_YET).on_conflict_do_nothing())
    row = await session.get_one(DocumentSeries, series, with_for_update=True, populate_existing=True)
    last = None if row.last == _NONE_YET else parse_number(row.last)
    number = next_number(series, now_ms, last)
    row.last = str(number)
    await session.flush()
    return number
