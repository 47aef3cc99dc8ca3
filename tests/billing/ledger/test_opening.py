"""Migration 0014 books what exists already: the ledger of an older database is proved at once."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, select, text

import migrations
from billing.context import BillingContext
from billing.ledger.balances import balances, differences
from billing.models import Bill, Payment
from billing.payments.disputes import record_dispute
from core.errors import NakaError
from core.postgres.database import Database
from tests import servers
from tests.billing.ledger.random_money import RandomMoney
from tests.billing.operator import OperatorSetup


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 5])
async def test_older_rows_are_booked_at_the_upgrade(context: BillingContext, setup: OperatorSetup, seed: int) -> None:
    money = await RandomMoney.open(context, setup, seed)
    for _ in range(25):
        await money.step()
    await money.fee()
    owner = Database(servers.owner(context.settings.database_url), pool_size=1)
    async with context.database.session() as session:
        was = await balances(session)
    async with owner.session() as session:
        await session.execute(text("SET session_replication_role = replica"))
        await session.execute(text("DELETE FROM ledger_entries"))
        await session.execute(text("UPDATE bills SET carried_paise = 0, written_off_paise = 0"))
        for opening in _openings():
            await session.execute(text(opening))
    async with owner.session() as session:
        assert await differences(session) == []
        found = await balances(session)
    await owner.close()
    assert (found["revenue"], found["gst_payable"], found["cash"]) == (was["revenue"], was["gst_payable"], was["cash"])
    async with context.database.session() as session:
        payment = (await session.scalars(select(Payment).where(Payment.applied_paise > 0).limit(1))).one()
    told = {"id": "disp_old", "payment_id": payment.razorpay_id, "amount": payment.amount_paise, "status": "lost"}
    assert await record_dispute(context, told)
    async with context.database.session() as session:
        assert await differences(session) == []


async def test_rows_that_break_a_rule_are_named_and_nothing_is_changed(
    context: BillingContext, setup: OperatorSetup
) -> None:
    money = await RandomMoney.open(context, setup, 3)
    await money.fee()
    owner = Database(servers.owner(context.settings.database_url), pool_size=1)
    async with context.database.session() as session:
        bill = (await session.scalars(select(Bill))).one()
        payment = (await session.scalars(select(Payment))).one()
    async with owner.session() as session:
        await session.execute(text("SET session_replication_role = replica"))
        await session.execute(text("ALTER TABLE bills DROP CONSTRAINT ck_bills_paid_paise"))
        await session.execute(text("UPDATE bills SET paid_paise = -5"))
        await session.execute(text("UPDATE payments SET charge_id = gen_random_uuid()"))

    def refused(connection: Connection) -> str:
        with Operations.context(MigrationContext.configure(connection)), pytest.raises(NakaError) as error:
            _migration()._refuse_rows()
        return str(error.value)

    async with owner.session() as session:
        said = (await (await session.connection()).run_sync(refused)).splitlines()
    assert "nothing was changed" in said[0]
    assert said[1:] == [
        f"bills: paid_paise is negative: {bill.id} (tenant {bill.tenant_id})",
        f"payments: charge_id names no row of charges: {payment.razorpay_id} (tenant {payment.tenant_id})",
    ]
    async with owner.session() as session:
        await session.execute(text("SET session_replication_role = replica"))
        await session.execute(text("UPDATE bills SET paid_paise = 0"))
        await session.execute(text("UPDATE payments SET charge_id = NULL"))
        await session.execute(text("ALTER TABLE bills ADD CONSTRAINT ck_bills_paid_paise CHECK (paid_paise >= 0)"))

    def allowed(connection: Connection) -> None:
        with Operations.context(MigrationContext.configure(connection)):
            _migration()._refuse_rows()

    async with owner.session() as session:
        await (await session.connection()).run_sync(allowed)
    await owner.close()


def _openings() -> list[str]:
    """The statements of the migration."""
    module = _migration()
    return [module._OPEN_BILLS, module._OPEN_PAYMENTS, module._OPEN_REFUNDS, module._OPEN_DISPUTES]


def _migration() -> Any:
    """The migration."""
    file = Path(migrations.__file__).parent / "versions" / "m0014_ledger_of_rows.py"
    spec = spec_from_file_location("m0014", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
