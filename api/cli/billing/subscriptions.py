"""`naka subscription`: what a tenant has subscribed to, and the operator's word on it.

Its own admin does the same on the account page; Razorpay is told by the worker.
"""

from typing import Annotated

import typer

from api.cli.accounts.tenants import Named, named_tenant
from api.cli.billing.billing_command import run_billing_command
from api.cli.command import AsJson, show, show_all
from api.routes.subscription_items import SubscriptionItem
from billing.context import BillingContext
from billing.models import Subscription
from billing.subscriptions.intents import cancel as cancel_it
from billing.subscriptions.intents import pause as pause_it
from billing.subscriptions.intents import subscriptions_of
from core.tenancy.audit import Actor

app = typer.Typer(no_args_is_help=True, help="Subscriptions at Razorpay.")
_COLUMNS = ["plan", "version", "state", "status", "amount", "paid_through", "ends_at", "payment_method", "error"]

Reason = Annotated[str, typer.Option(help="Why; for the audit log.")]


class Shown(SubscriptionItem):
    """One, with its amount for people. Where it is to be authorised is the tenant's to see."""

    amount: str

    @classmethod
    def of_row(cls, row: Subscription) -> "Shown":
        """As it is printed."""
        item = SubscriptionItem.of(row, "")
        given = item.model_dump() | {"pay_url": None, "checkout": None}
        return cls(**given, amount=f"{item.amount_paise // 100:,}.{item.amount_paise % 100:02d}")


@app.command("list")
def list_all(tenant: Named, *, as_json: AsJson = False) -> None:
    """List the subscriptions of a tenant, ended ones too."""

    async def work(context: BillingContext, _: Actor) -> list[Shown]:
        async with context.database.session() as session:
            found = await named_tenant(session, tenant)
            return [Shown.of_row(row) for row in await subscriptions_of(session, found.id)]

    show_all(run_billing_command(work), _COLUMNS, as_json=as_json)


@app.command()
def cancel(tenant: Named, reason: Reason, *, now: bool = False, as_json: AsJson = False) -> None:
    """End a tenant's subscription with the period that is paid for; with --now no further charge is made at all."""

    async def work(context: BillingContext, actor: Actor) -> Shown:
        async with context.database.session() as session:
            tenant_id = (await named_tenant(session, tenant)).id
        return Shown.of_row(await cancel_it(context, actor, tenant_id, at_period_end=not now, reason=reason))

    show(run_billing_command(work), as_json=as_json)


@app.command()
def pause(tenant: Named, *, as_json: AsJson = False) -> None:
    """Make no further charges until it is resumed; what is paid for is served."""
    show(_paused(tenant, resume=False), as_json=as_json)


@app.command()
def resume(tenant: Named, *, as_json: AsJson = False) -> None:
    """Let charges go on."""
    show(_paused(tenant, resume=True), as_json=as_json)


def _paused(tenant: str, *, resume: bool) -> Shown:
    async def work(context: BillingContext, actor: Actor) -> Shown:
        async with context.database.session() as session:
            tenant_id = (await named_tenant(session, tenant)).id
        return Shown.of_row(await pause_it(context, actor, tenant_id, resume=resume))

    return run_billing_command(work)
