"""`naka charge`, `naka refund`, `naka finding`: collecting bills, giving back, and what a person should look at."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.accounts.tenants import named_tenant
from api.cli.billing.billing_command import run_billing_command
from api.cli.command import AsJson, show, show_all
from api.routes.admin.charges import ChargeItem, ChargeState, Decision
from api.routes.admin.refunds import FindingClose, FindingItem, RefundItem, RefundState
from billing.collection.charges import retry
from billing.context import BillingContext
from billing.payments.lists import close_finding, list_charges, list_findings, list_refunds
from billing.payments.refunds import decide
from core.tenancy.audit import Actor

charge_app = typer.Typer(no_args_is_help=True, help="Charges: the attempts to collect bills.")
refund_app = typer.Typer(no_args_is_help=True, help="Refunds: money on its way back.")
finding_app = typer.Typer(no_args_is_help=True, help="Findings: what a person should know about money.")

_MOST = 1000
Tenant = Annotated[str | None, typer.Option(help="Only this tenant's: its slug or id.")]
Most = Annotated[int, typer.Option("--limit", min=1, max=_MOST, help="So many, the newest.")]
Reason = Annotated[str, typer.Option(help="Why.")]
RefundId = Annotated[UUID, typer.Argument(metavar="REFUND", help="A refund's id.")]


@charge_app.command("list")
def charges(
    tenant: Tenant = None,
    state: Annotated[ChargeState | None, typer.Option(help="Only these.")] = None,
    most: Most = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """List attempts, newest first."""

    async def work(context: BillingContext, _: Actor) -> list[ChargeItem]:
        async with context.database.session() as session:
            whose = None if tenant is None else (await named_tenant(session, tenant)).id
            rows = await list_charges(session, tenant_id=whose, state=state, limit=most)
        return [ChargeItem.of(row) for row in rows]

    columns = ["id", "tenant_id", "bill_id", "attempt", "instrument", "state", "amount_paise", "error"]
    show_all(run_billing_command(work), columns, as_json=as_json)


@charge_app.command("retry")
def try_again(
    charge: Annotated[UUID, typer.Argument(metavar="CHARGE", help="A charge's id.")],
    reason: Reason,
    *,
    as_json: AsJson = False,
) -> None:
    """Let a failed attempt go: the next one is made."""
    said = Decision(reason=reason).reason

    async def work(context: BillingContext, actor: Actor) -> ChargeItem:
        return ChargeItem.of(await retry(context, actor, charge, reason=said))

    show(run_billing_command(work), as_json=as_json)


@refund_app.command("list")
def refunds(
    tenant: Tenant = None,
    state: Annotated[RefundState | None, typer.Option(help="Only these.")] = None,
    most: Most = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """List refunds, newest first."""

    async def work(context: BillingContext, _: Actor) -> list[RefundItem]:
        async with context.database.session() as session:
            whose = None if tenant is None else (await named_tenant(session, tenant)).id
            rows = await list_refunds(session, tenant_id=whose, state=state, limit=most)
        return [RefundItem.of(row) for row in rows]

    columns = ["id", "tenant_id", "payment_id", "amount_paise", "cause", "state", "error"]
    show_all(run_billing_command(work), columns, as_json=as_json)


@refund_app.command()
def approve(refund: RefundId, reason: Reason, *, as_json: AsJson = False) -> None:
    """Send a refund that is above the cap."""
    _decide(refund, reason, approved=True, as_json=as_json)


@refund_app.command()
def deny(refund: RefundId, reason: Reason, *, as_json: AsJson = False) -> None:
    """Do not send a refund that is above the cap."""
    _decide(refund, reason, approved=False, as_json=as_json)


def _decide(refund: UUID, reason: str, *, approved: bool, as_json: bool) -> None:
    said = Decision(reason=reason).reason

    async def work(context: BillingContext, actor: Actor) -> RefundItem:
        return RefundItem.of(await decide(context, actor, refund, approve=approved, reason=said))

    show(run_billing_command(work), as_json=as_json)


@finding_app.command("list")
def findings(
    most: Most = 50,
    *,
    closed: Annotated[bool, typer.Option("--closed", help="Those that were closed.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what is to be looked at, newest first."""

    async def work(context: BillingContext, _: Actor) -> list[FindingItem]:
        async with context.database.session() as session:
            rows = await list_findings(session, closed=closed, limit=most)
        return [FindingItem.of(row) for row in rows]

    show_all(run_billing_command(work), ["key", "kind", "tenant_id", "seen_at", "detail"], as_json=as_json)


@finding_app.command("close")
def close(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A finding's key.")],
    reason: Reason,
    *,
    as_json: AsJson = False,
) -> None:
    """Say that a finding was looked at."""
    said = FindingClose(key=key, reason=reason)

    async def work(context: BillingContext, actor: Actor) -> FindingItem:
        async with context.database.session() as session:
            return FindingItem.of(await close_finding(session, actor, said.key, said.reason))

    show(run_billing_command(work), as_json=as_json)
