"""A month of the ledger for the accountant: lines for a spreadsheet, or vouchers that Tally imports.

A line is one account of one entry, in rupees: every entry's debits equal its credits. The month is the operator's, by
the time of booking. Read in batches, each its own transaction; entries never change. Postgres down: Unavailable.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date
from typing import Protocol
from uuid import UUID
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.gst.rupees import plain_rupees
from billing.models import Bill, LedgerEntry
from billing.models.ledger import ACCOUNTS
from billing.models.states import LedgerEntryKind
from core.clock import to_datetime
from core.tenancy.models import Tenant

COLUMNS = ("date", "tenant", "entry", "kind", "document", "payment", "refund", "account", "debit", "credit")
_BATCH = 1_000
_NAMES = {
    "receivable": "Receivables",
    "revenue": "Revenue",
    "gst_payable": "GST payable",
    "cash": "Cash at Razorpay",
    "customer_credit": "Customer credit",
    "write_off": "Bad debts",
}
"""Names of the accounts in Tally, whose ledgers the accountant creates once."""
_VOUCHERS = {
    LedgerEntryKind.BILL: "Sales",
    LedgerEntryKind.CREDIT_NOTE: "Credit Note",
    LedgerEntryKind.PAYMENT: "Receipt",
    LedgerEntryKind.LATE_MONEY: "Receipt",
    LedgerEntryKind.REFUND: "Payment",
}
"""Tally's types of vouchers; others are journal vouchers."""


@dataclass(frozen=True, slots=True)
class BookedEntry:
    """An entry with the names that an accountant knows. `amounts`: paise by account, debits positive, without zeros."""

    day: date
    tenant: str
    id: UUID
    kind: str
    number: str
    payment_id: str
    refund_id: str
    amounts: tuple[tuple[str, int], ...]

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The lines under `COLUMNS`."""
        named = (self.day.isoformat(), self.tenant, str(self.id), self.kind)
        of = (self.number, self.payment_id, self.refund_id)
        for account, paise in self.amounts:
            debit, credit = (plain_rupees(paise), "") if paise > 0 else ("", plain_rupees(-paise))
            yield (*named, *of, account, debit, credit)


class Transactions(Protocol):
    """Opens a transaction."""

    def __call__(self) -> AbstractAsyncContextManager[AsyncSession]:
        """One that reads."""


async def booked_entries(
    transactions: Transactions, zone: ZoneInfo, starts_ms: int, ends_ms: int, tenant_id: UUID | None = None
) -> AsyncIterator[Sequence[BookedEntry]]:
    """The entries booked from `starts_ms` until before `ends_ms`, oldest first, in batches."""
    order = (LedgerEntry.at_ms, LedgerEntry.tenant_id, LedgerEntry.id)
    query = (
        select(LedgerEntry, Tenant.slug, Bill.number)
        .join(Tenant, Tenant.id == LedgerEntry.tenant_id)
        .outerjoin(Bill, (Bill.tenant_id == LedgerEntry.tenant_id) & (Bill.id == LedgerEntry.bill_id))
        .where(LedgerEntry.at_ms >= starts_ms, LedgerEntry.at_ms < ends_ms)
        .order_by(*order)
        .limit(_BATCH)
    )
    if tenant_id is not None:
        query = query.where(LedgerEntry.tenant_id == tenant_id)
    page = query
    while True:
        async with transactions() as session:
            rows = [(entry, slug, number) for entry, slug, number in await session.execute(page)]
        yield [_booked(entry, slug, number, zone) for entry, slug, number in rows]
        if len(rows) < _BATCH:
            return
        last = rows[-1][0]
        page = query.where(tuple_(*order) > (last.at_ms, last.tenant_id, last.id))


async def tally_xml(batches: AsyncIterator[Sequence[BookedEntry]]) -> AsyncIterator[str]:
    """The month as an import file of Tally, in pieces. Debits are negative there."""
    yield (
        "<ENVELOPE><HEADER><TALLYREQUEST>Import Data</TALLYREQUEST></HEADER><BODY><IMPORTDATA>"
        "<REQUESTDESC><REPORTNAME>Vouchers</REPORTNAME></REQUESTDESC><REQUESTDATA>\n"
    )
    async for entries in batches:
        yield "".join(_voucher(entry) for entry in entries)
    yield "</REQUESTDATA></IMPORTDATA></BODY></ENVELOPE>\n"


def _booked(entry: LedgerEntry, slug: str, number: str | None, zone: ZoneInfo) -> BookedEntry:
    return BookedEntry(
        day=to_datetime(entry.at_ms).astimezone(zone).date(),
        tenant=slug,
        id=entry.id,
        kind=entry.kind,
        number=entry.detail.get("number") or number or "",
        payment_id=entry.payment_id or "",
        refund_id="" if entry.refund_id is None else str(entry.refund_id),
        amounts=tuple((name, paise) for name in ACCOUNTS if (paise := getattr(entry, name))),
    )


def _voucher(entry: BookedEntry) -> str:
    kind = _VOUCHERS.get(LedgerEntryKind(entry.kind), "Journal")
    lines = "".join(
        f"<ALLLEDGERENTRIES.LIST><LEDGERNAME>{escape(_ledger(account, entry))}</LEDGERNAME>"
        f"<ISDEEMEDPOSITIVE>{'Yes' if paise > 0 else 'No'}</ISDEEMEDPOSITIVE>"
        f"<AMOUNT>{'-' if paise > 0 else ''}{plain_rupees(abs(paise))}</AMOUNT></ALLLEDGERENTRIES.LIST>"
        for account, paise in entry.amounts
    )
    said = " ".join(part for part in (entry.kind, entry.number, entry.payment_id, entry.refund_id) if part)
    return (
        f'<TALLYMESSAGE><VOUCHER REMOTEID="naka-{entry.id}" VCHTYPE="{kind}" ACTION="Create">'
        f"<DATE>{entry.day:%Y%m%d}</DATE><VOUCHERTYPENAME>{kind}</VOUCHERTYPENAME>"
        f"<VOUCHERNUMBER>{escape(entry.number or entry.id.hex)}</VOUCHERNUMBER><NARRATION>{escape(said)}</NARRATION>"
        f"{lines}</VOUCHER></TALLYMESSAGE>\n"
    )


def _ledger(account: str, entry: BookedEntry) -> str:
    """The ledger in Tally: of the customer for what it owes, else one for all."""
    return f"{_NAMES[account]}: {entry.tenant}" if account == "receivable" else _NAMES[account]
