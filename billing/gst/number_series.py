"""The next number of a series, held until the document that bears it is committed.

Whoever takes a number holds the series' row to the end of the transaction, so the next one waits, and a transaction
that is rolled back gives its number back: no gap, no repeat. The tenant's lock is taken before (`tenant_transaction`).
"""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.gst.invoice_numbers import DocumentNumber, Series, next_number, parse_number
from billing.models import DocumentSeries

_NONE_YET = ""


async def take_number(session: AsyncSession, series: Series, now_ms: int) -> DocumentNumber:
    """The next number of the series, by the Indian date of this moment. Raises WrongNumber when the clock went back."""
    await session.execute(insert(DocumentSeries).values(series=series, last=_NONE_YET).on_conflict_do_nothing())
    row = (
        await session.scalars(
            select(DocumentSeries)
            .where(DocumentSeries.series == series)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    ).one()
    last = None if row.last == _NONE_YET else parse_number(row.last)
    number = next_number(series, now_ms, last)
    row.last = str(number)
    await session.flush()
    return number
