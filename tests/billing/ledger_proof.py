"""The proof that every test of money may make: the ledger balances, and agrees with the rows."""

from billing.context import BillingContext
from billing.ledger.balances import balances, differences


async def proved(context: BillingContext) -> dict[str, int]:
    """The balances of all tenants. Fails if an account and its rows differ."""
    async with context.database.session() as session:
        assert await differences(session) == []
        found = await balances(session)
    assert sum(found.values()) == 0
    return found
