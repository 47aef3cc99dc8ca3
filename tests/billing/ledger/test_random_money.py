"""After every step of random sequences the ledger balances to zero, and agrees with the rows and with Razorpay."""

import pytest
from sqlalchemy import func, select

from billing.context import BillingContext
from billing.ledger.balances import DEBTS
from billing.models import Bill, LedgerEntry
from billing.models.bills import SMALLEST_PAISE, balance_of
from tests.billing.ledger.random_money import RandomMoney
from tests.billing.ledger_proof import proved
from tests.billing.operator import OperatorSetup

STEPS = 40


@pytest.mark.parametrize("seed", range(8))
async def test_the_ledger_balances_after_every_step(context: BillingContext, setup: OperatorSetup, seed: int) -> None:
    money = await RandomMoney.open(context, setup, seed)
    happened: list[str] = []
    for _ in range(STEPS):
        happened.append(await money.step())
        found = await proved(context)
        assert found["cash"] == money.cash_paise, happened
    async with context.database.session() as session:
        numbered = select(Bill).where(Bill.number.is_not(None))
        bills = (await session.scalars(numbered)).all()
        of_documents = select(func.sum(LedgerEntry.receivable)).where(LedgerEntry.kind == "bill")
        assert int(await session.scalar(of_documents) or 0) == sum(
            bill.total_paise for bill in bills if bill.kind in DEBTS
        )
        notes = select(func.sum(LedgerEntry.receivable + LedgerEntry.customer_credit)).where(
            LedgerEntry.kind == "credit_note"
        )
        assert int(await session.scalar(notes) or 0) == sum(
            bill.total_paise for bill in bills if bill.kind == "credit_note"
        )
    owed = {bill.id: balance_of(bill) for bill in bills if bill.kind in DEBTS and balance_of(bill) > 0}
    assert sum(owed.values()) == found["receivable"]
    assert all(paise < SMALLEST_PAISE for bill in bills if bill.state != "open" for paise in [owed.get(bill.id, 0)])
