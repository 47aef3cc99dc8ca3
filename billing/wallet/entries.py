"""The entries of a wallet, and what is left of each top-up and promotion.

An entry is never changed. One that takes away, or gives back, names the entry that it takes from, so the balance is
the sum of all entries and also of what is left of each. Written under the tenant's lock. Postgres down: Unavailable.
"""

from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import BigInteger, cast, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Bill, WalletEntry
from billing.models.states import WalletEntryKind
from billing.wallet.draw import Lot, Part
from core.ids import uuid7

_GIVEN = (WalletEntryKind.TOP_UP, WalletEntryKind.PROMOTION)


async def add_entry(
    session: AsyncSession,
    tenant_id: UUID,
    kind: WalletEntryKind,
    paise: int,
    reference: str,
    now_ms: int,
    **columns: object,
) -> bool:
    """Writes an entry, once per reference; whether it is new. Project afterwards."""
    values = {"tenant_id": tenant_id, "id": uuid7(now_ms), "kind": kind, "paise": paise, "reference": reference}
    statement = insert(WalletEntry).values(**values, created_ms=now_ms, **columns).on_conflict_do_nothing()
    return (await session.scalar(statement.returning(WalletEntry.id))) is not None


async def lots_of(session: AsyncSession, tenant_id: UUID) -> Sequence[Lot]:
    """Every top-up and promotion with what is left of it, in the order of use; used-up ones have 0 left."""
    taken = (
        select(WalletEntry.of_id, func.sum(WalletEntry.paise).label("paise"))
        .where(WalletEntry.tenant_id == tenant_id, WalletEntry.of_id.is_not(None))
        .group_by(WalletEntry.of_id)
        .subquery()
    )
    query = (
        select(WalletEntry, cast(func.coalesce(taken.c.paise, 0), BigInteger))
        .outerjoin(taken, taken.c.of_id == WalletEntry.id)
        .where(WalletEntry.tenant_id == tenant_id, WalletEntry.kind.in_(_GIVEN))
    )
    found = [
        Lot(row.id, row.kind == WalletEntryKind.TOP_UP, row.paise, row.paise + other, row.expires_ms, row.bill_id)
        for row, other in await session.execute(query)
    ]
    return sorted(found, key=lambda lot: lot.order)


async def balance_of(session: AsyncSession, tenant_id: UUID) -> int:
    """The sum of a wallet's entries: without the price of usage that no bill has drawn yet (`billing.wallet.funds`)."""
    total = select(cast(func.coalesce(func.sum(WalletEntry.paise), 0), BigInteger))
    return int(await session.scalar(total.where(WalletEntry.tenant_id == tenant_id)) or 0)


async def drawn_by(session: AsyncSession, bill: Bill, *, less_notes: bool = True) -> Sequence[Part]:
    """The amounts drawn from each lot by a bill, less those given back by its credit notes; empty without any."""
    notes = select(Bill.id).where(Bill.tenant_id == bill.tenant_id, Bill.refers_to == bill.id, literal(less_notes))
    query = (
        select(WalletEntry.of_id, func.sum(WalletEntry.paise))
        .where(WalletEntry.tenant_id == bill.tenant_id, WalletEntry.kind == WalletEntryKind.USAGE)
        .where((WalletEntry.bill_id == bill.id) | WalletEntry.bill_id.in_(notes))
        .group_by(WalletEntry.of_id)
    )
    sums = {of_id: -int(paise) for of_id, paise in await session.execute(query)}
    lots = await lots_of(session, bill.tenant_id) if sums else ()
    return [Part(lot, sums[lot.id]) for lot in lots if sums.get(lot.id)]


async def record_usage(
    session: AsyncSession, bill: Bill, parts: Iterable[Part], now_ms: int, *, back: bool = False
) -> None:
    """Writes what a bill draws, or a credit note gives `back`: an entry for each lot, once per document."""
    sign = 1 if back else -1
    for part in parts:
        await add_entry(
            session,
            bill.tenant_id,
            WalletEntryKind.USAGE,
            sign * part.paise,
            f"usage:{bill.id}:{part.lot.id}",
            now_ms,
            of_id=part.lot.id,
            bill_id=bill.id,
            period_id=bill.period_id,
        )
