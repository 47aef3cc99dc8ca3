"""`naka operator` and `naka profile`: the two parties of every bill."""

from typing import Annotated

import typer

from api.cli.accounts.tenants import Named, named_tenant
from api.cli.command import AsJson, CommandContext, run_command, show
from api.routes.admin.profiles import OperatorBody, OperatorItem, ProfileBody, ProfileItem
from billing.catalogue.profiles import profile_of, set_profile, set_supplier, supplier
from core.tenancy.audit import record_read

operator = typer.Typer(no_args_is_help=True, help="The supplier on every bill.")
profile = typer.Typer(no_args_is_help=True, help="A tenant, as its bills show it.")

_Name = Annotated[str, typer.Option(help="The legal name.")]
_Lines = Annotated[list[str], typer.Option("--line", help="A line of the address; again for the next.")]
_City = Annotated[str, typer.Option(help="The city.")]
_Code = Annotated[str, typer.Option(help="The PIN code, or abroad the postal code.")]
_Email = Annotated[str, typer.Option(help="Where bills are asked about.")]


@operator.command("show")
def show_operator(*, as_json: AsJson = False) -> None:
    """Show it."""

    async def work(context: CommandContext) -> OperatorItem:
        return OperatorItem.of(await supplier(context.session))

    show(run_command(work), as_json=as_json)


@operator.command("set")
def set_operator(  # noqa: PLR0913 - all that a party is
    *,
    name: _Name,
    line: _Lines,
    city: _City,
    postal_code: _Code,
    state: Annotated[str, typer.Option(help="GST's code of the state, as 29.")],
    gstin: Annotated[str, typer.Option(help="The GSTIN.")],
    email: _Email,
    sac: Annotated[str, typer.Option(help="The service's code.")] = "998315",
    lut: Annotated[str | None, typer.Option(help="The letter of undertaking, to serve customers abroad.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replace it. Earlier bills stay as they are."""
    fields = {"legal_name": name, "lines": line, "city": city, "postal_code": postal_code, "state": state}
    new = OperatorBody.model_validate(fields | {"gstin": gstin, "email": email, "sac": sac, "lut_number": lut})

    async def work(context: CommandContext) -> OperatorItem:
        return OperatorItem.of(await set_supplier(context.session, context.actor, new.as_supplier()))

    show(run_command(work), as_json=as_json)


@profile.command("show")
def show_profile(tenant: Named, *, as_json: AsJson = False) -> None:
    """Show it."""

    async def work(context: CommandContext) -> ProfileItem:
        found = await named_tenant(context.session, tenant)
        record_read(context.session, context.actor, "profile", tenant_id=found.id, target=f"tenant:{found.id}")
        return ProfileItem.of(await profile_of(context.session, found.id))

    show(run_command(work), as_json=as_json)


@profile.command("set")
def set_one(  # noqa: PLR0913 - all that a party is
    tenant: Named,
    *,
    name: _Name,
    line: _Lines,
    city: _City,
    postal_code: _Code,
    email: _Email,
    country: Annotated[str, typer.Option(help="Two letters.")] = "IN",
    state: Annotated[str | None, typer.Option(help="GST's code of the state; none abroad.")] = None,
    gstin: Annotated[str | None, typer.Option(help="The GSTIN; without one it is unregistered.")] = None,
    contact: Annotated[str | None, typer.Option(help="A phone number.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replace it. Earlier bills stay as they are."""
    fields = {"legal_name": name, "lines": line, "city": city, "postal_code": postal_code, "country": country}
    new = ProfileBody.model_validate(fields | {"email": email, "state": state, "gstin": gstin, "contact": contact})

    async def work(context: CommandContext) -> ProfileItem:
        found = await named_tenant(context.session, tenant)
        return ProfileItem.of(await set_profile(context.session, context.actor, found.id, new.as_profile()))

    show(run_command(work), as_json=as_json)
