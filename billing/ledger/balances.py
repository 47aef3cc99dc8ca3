"""Balances of the ledger, and the proof that they are those of the bills, payments, refunds and disputes.

Both sides are read by one statement, so that a movement made meanwhile is on both or on neither. Postgres down:
Unavailable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    SQLColumnExpression,
    cast,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Bill, Dispute, LedgerEntry, Payment, Refund
from billing.models.bills import balance_sql
from billing.models.ledger import ACCOUNTS
from billing.models.states import CAPTURED, BillKind, LedgerEntryKind, RefundState

DEBTS = (BillKind.BASE, BillKind.OVERAGE)
"""Kinds of documents that a customer owes."""
_VOUCHERS = (BillKind.RECEIPT_VOUCHER, BillKind.REFUND_VOUCHER)
_Paise = SQLColumnExpression[int]
_Amounts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """An account of a tenant whose entries and rows disagree. `booked`: by the ledger; `derived`: by the rows."""

    tenant_id: UUID
    account: str
    booked: int
    derived: int


async def balances(session: AsyncSession, tenant_id: UUID | None = None) -> dict[str, int]:
    """The balance of each account, of one tenant or of all; debits are positive. They add up to zero."""
    sums = [cast(func.coalesce(func.sum(getattr(LedgerEntry, name)), 0), BigInteger) for name in ACCOUNTS]
    query = select(*sums)
    if tenant_id is not None:
        query = query.where(LedgerEntry.tenant_id == tenant_id)
    return dict(zip(ACCOUNTS, (await session.execute(query)).one(), strict=True))


async def differences(session: AsyncSession, tenant_id: UUID | None = None, limit: int = 100) -> list[Difference]:
    """The accounts whose entries don't add up to what the rows say; empty if the ledger is proved."""
    sides = union_all(*(query.where(*_own(table, tenant_id)) for table, query in _sides())).subquery("sides")
    sums: list[Any] = []
    for name in ACCOUNTS:
        for side in ("booked", "derived"):
            of_side = func.sum(sides.c[name]).filter(sides.c.side == side)
            sums.append(cast(func.coalesce(of_side, 0), BigInteger).label(f"{name}_{side}"))
    of_tenants = select(sides.c.tenant_id, *sums).group_by(sides.c.tenant_id).subquery("of_tenants")
    differs = or_(*(of_tenants.c[f"{name}_booked"] != of_tenants.c[f"{name}_derived"] for name in ACCOUNTS))
    query = select(of_tenants).where(differs).order_by(of_tenants.c.tenant_id).limit(limit)
    return [
        Difference(row["tenant_id"], name, row[f"{name}_booked"], row[f"{name}_derived"])
        for row in (await session.execute(query)).mappings()
        for name in ACCOUNTS
        if row[f"{name}_booked"] != row[f"{name}_derived"]
    ]


def _own(table: Any, tenant_id: UUID | None) -> tuple[ColumnElement[bool], ...]:
    return () if tenant_id is None else (table.tenant_id == tenant_id,)


def _sides() -> list[tuple[Any, Select[Any]]]:
    """The sums that each kind of row adds to the accounts, next to the entries."""
    balance, numbered, tax = balance_sql(), Bill.number.is_not(None), _tax()
    sold = {"revenue": tax - Bill.total_paise, "gst_payable": -tax}
    settled = Bill.paid_paise - func.greatest(-balance, 0)
    debts = {
        "receivable": func.greatest(balance, 0),
        **sold,
        "customer_credit": settled,
        "write_off": Bill.written_off_paise,
    }
    from_wallets = {"gst_payable": LedgerEntry.gst_payable, "customer_credit": -LedgerEntry.gst_payable}
    return [
        (LedgerEntry, _side("booked", LedgerEntry, {name: getattr(LedgerEntry, name) for name in ACCOUNTS})),
        (Bill, _side("derived", Bill, debts).where(numbered, Bill.kind.in_(DEBTS))),
        (Bill, _side("derived", Bill, sold).where(numbered, Bill.kind == BillKind.CREDIT_NOTE)),
        (
            Bill,
            _side("derived", Bill, {"gst_payable": -tax, "customer_credit": tax}).where(
                numbered, Bill.kind.in_(_VOUCHERS)
            ),
        ),
        (Payment, _moved(Payment, Payment.amount_paise).where(Payment.status.in_(CAPTURED))),
        (Refund, _moved(Refund, -Refund.amount_paise).where(Refund.state == RefundState.PROCESSED)),
        (Dispute, _moved(Dispute, -Dispute.amount_paise).where(Dispute.status == "lost")),
        # The tax on the advance that a bill used up is stored by the entry alone.
        (
            LedgerEntry,
            _side("derived", LedgerEntry, from_wallets).where(LedgerEntry.kind == LedgerEntryKind.WALLET_USAGE),
        ),
    ]


def _moved(table: Any, cash: _Paise) -> Select[Any]:
    return _side("derived", table, {"cash": cash, "customer_credit": -cash})


def _side(side: str, table: Any, amounts: _Amounts) -> Select[Any]:
    columns = [cast(amounts.get(name, literal(0)), BigInteger).label(name) for name in ACCOUNTS]
    return select(literal(side).label("side"), table.tenant_id.label("tenant_id"), *columns)


def _tax() -> ColumnElement[int]:
    """The tax on a bill, from its components."""
    line = func.jsonb_array_elements(Bill.tax, type_=JSONB).column_valued("line")
    total = func.sum(cast(line["tax_paise"].astext, BigInteger))
    return func.coalesce(select(total).correlate(Bill).scalar_subquery(), 0)
