"""A tenant that authorises a mandate and has bills to debit, with this process on the simulator's clock."""

from contextlib import suppress
from typing import Any
from uuid import UUID

from sqlalchemy import update

from billing.mandates.mandates import register_mandate
from billing.mandates.push import LIST_LAG_MS, push_mandate, push_mandates
from billing.mandates.sync import refresh_mandate
from billing.models import Charge, Mandate
from billing.razorpay.errors import RazorpayError
from core.tenancy.models import Tenant
from tests.billing.billed_tenant import BilledTenant
from tests.billing.signup import ACTOR, Signup

CONTACT = "+919812345670"
HOUR_S = 3600


class MandatedTenant(BilledTenant):
    """A tenant on a plan that bills."""

    def __init__(self, signup: Signup) -> None:
        super().__init__(signup.context, signup.razorpay, signup.tenant_id)
        self.signup = signup

    @classmethod
    async def start(cls, signup: Signup, plan: str = "team") -> "MandatedTenant":
        """Puts the tenant on the plan."""
        async with signup.context.database.session() as session:
            on = {"plan_code": plan, "plan_version": 1}
            await session.execute(update(Tenant).where(Tenant.id == signup.tenant_id).values(on))
        return cls(signup)

    async def wish(self, method: str = "upi", **given: Any) -> Mandate:
        """Asks for a mandate as the route does: the wish is stored even if the call fails."""
        row = await register_mandate(self.context, ACTOR, self.tenant_id, method=method, contact=CONTACT, **given)
        with suppress(RazorpayError):
            await push_mandate(self.context, self.tenant_id, row.id)
        return await self.mandate(row.id)

    async def authorised(self, method: str = "upi", **given: Any) -> Mandate:
        """Asks for a mandate, authorises it at Razorpay, and fetches."""
        row = await self.wish(method, **given)
        assert row.razorpay_id is not None, row.error
        self.razorpay.register(row.razorpay_id, "card_domestic" if method == "card" else method)
        await self.fetch(row)
        return await self.mandate(row.id)

    async def fetch(self, row: Mandate) -> None:
        """Refreshes, as a webhook does."""
        await refresh_mandate(self.context, self.tenant_id, row.id)

    async def mandate(self, mandate_id: UUID) -> Mandate:
        """The current row."""
        return await self.context.read(Mandate, self.tenant_id, mandate_id)

    async def mandates(self) -> list[Mandate]:
        """All rows, oldest first."""
        return await self.signup.all(Mandate, Mandate.id)

    async def work(self) -> None:
        """Runs the duties MANDATES and COLLECT."""
        await push_mandates(self.context)
        await self.collect()

    async def pass_time(self, *, hours: float = 0, lag: bool = False) -> None:
        """Moves the clock of both sides, and runs the duties."""
        await self.signup.advance(seconds=LIST_LAG_MS / 1000 + 60 if lag else hours * HOUR_S)
        await self.work()

    async def debited(self, charge: Charge) -> Charge:
        """The charge after its debit had its time."""
        await self.pass_time(hours=40)
        return await self.context.read(Charge, self.tenant_id, charge.id)

    def tokens(self, status: str | None = None) -> list[dict[str, Any]]:
        """The tokens at Razorpay, optionally of one status."""
        found = self.razorpay.ledger()["tokens"]
        return [one for one in found if status in (None, one["recurring_details"]["status"])]
