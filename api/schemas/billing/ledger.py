"""Shapes of the ledger's balances, and the form of its export."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

LedgerForm = Literal["csv", "tally"]
MONTH = r"^20[0-9]{2}-(0[1-9]|1[0-2])$"


class LedgerDifference(BaseModel):
    """An account of a tenant whose entries (`booked`) and rows (`derived`) disagree. Paise."""

    tenant_id: UUID
    account: str
    booked: int
    derived: int


class LedgerBalances(BaseModel):
    """The balances of the accounts, in paise; debits are positive, and they add up to zero.

    `differences` is empty where bills, payments, refunds and disputes say the same.
    """

    receivable: int
    revenue: int
    gst_payable: int
    cash: int
    customer_credit: int
    write_off: int
    differences: list[LedgerDifference]
