"""Refusals of Postgres itself: changed documents and entries, rows without parents, sides that don't balance."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from billing.context import BillingContext
from billing.ledger.entries import Movement, book
from billing.models.states import LedgerEntryKind
from core.clock import now_ms
from core.ids import uuid7
from core.postgres.database import Database
from tests import servers
from tests.billing.operator import OperatorSetup

KEPT = (
    "lines = '[]'",
    "taxable_paise = 1",
    "tax = '[]'",
    "total_paise = 1",
    "supply = '{}'",
    "customer = '{}'",
    "supplier = '{}'",
    "number = 'X'",
    "number = NULL",
    "issued_ms = 1",
    "ends_ms = 1",
    "plan_version = 2",
)


@pytest.fixture
async def owner(context: BillingContext) -> Database:
    """The schema's owner, whom no privilege stops."""
    made = Database(servers.owner(context.settings.database_url), pool_size=1)
    context.database.closing.append(made.close)
    return made


async def refused(owner: Database, statement: str) -> None:
    """Runs a statement that must fail."""
    with pytest.raises(IntegrityError):
        async with owner.session() as session:
            await session.execute(text(statement))


@pytest.mark.parametrize("change", KEPT)
async def test_a_numbered_document_stays_as_it_is(setup: OperatorSetup, owner: Database, change: str) -> None:
    await setup.tenant_with_usage(7)
    await setup.close()
    await refused(owner, f"UPDATE bills SET {change}")


async def test_documents_and_entries_are_never_deleted(setup: OperatorSetup, owner: Database) -> None:
    await setup.tenant_with_usage(7)
    await setup.close()
    for statement in (
        "DELETE FROM bills",
        "DELETE FROM ledger_entries",
        "UPDATE ledger_entries SET cash = cash + 1, customer_credit = customer_credit - 1",
    ):
        await refused(owner, statement)


async def test_a_draft_may_change(setup: OperatorSetup, owner: Database) -> None:
    await setup.tenant_with_usage(0)
    tenant_id = await setup.tenant(is_known=False)
    await setup.period(tenant_id)
    await setup.add_usage(tenant_id, "2026-01-05-abcdef", output_tokens=1_010)
    await setup.close()
    async with owner.session() as session:
        await session.execute(text("UPDATE bills SET lines = '[]' WHERE number IS NULL"))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE bills SET paid_paise = -1",
        "UPDATE bills SET credited_paise = total_paise + 1",
        "UPDATE bills SET refers_to = gen_random_uuid() WHERE number IS NULL",
        "INSERT INTO disputes VALUES ((SELECT id FROM tenants LIMIT 1), 'disp_1', 'pay_none', 1, 'open', '{}', 1)",
        "UPDATE payments SET refunded_paise = amount_paise + 1",
        "UPDATE payments SET applied_paise = amount_paise + 1",
        "UPDATE payments SET bill_id = gen_random_uuid()",
    ],
)
async def test_money_has_its_bounds_and_its_parents(setup: OperatorSetup, owner: Database, change: str) -> None:
    await setup.tenant_with_usage(7)
    await setup.tenant_with_usage(0)
    unknown = await setup.tenant(is_known=False)
    await setup.period(unknown)
    await setup.add_usage(unknown, "2026-01-05-abcdef", output_tokens=1_010)
    await setup.close()
    (bill,) = [one for one in await setup.bills() if one.number is not None]
    await setup.pay(bill)
    await refused(owner, change)


async def test_an_entry_balances_and_is_booked_once(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant()
    movement = Movement(LedgerEntryKind.PAYMENT, "payment:x", now_ms())
    with pytest.raises(IntegrityError):
        async with setup.context.database.session() as session:
            await book(session, tenant_id, movement, cash=5, receivable=-4)
    async with setup.context.database.session() as session:
        for _ in range(2):
            await book(session, tenant_id, movement, cash=5, receivable=-5)
        assert await session.scalar(text("SELECT sum(cash) FROM ledger_entries")) == 5
    with pytest.raises(IntegrityError):
        async with setup.context.database.session() as session:
            await book(session, tenant_id, Movement(LedgerEntryKind.BILL, "bill:x", 1, uuid7()), cash=1, receivable=-1)
