"""`naka operator` and `naka profile`: the two parties of every bill."""

from typing import Annotated

import typer

from api.cli.command import Answer, Call, Group
from api.cli.options import Tenant, tenant_name
from api.schemas.billing.profiles import OperatorBody, ProfileBody
from api.services.billing import profiles
from api.services.context import ServiceContext
from core.errors import NotFound

operator = Group()
profile = Group()

_Name = Annotated[str, typer.Option(help="The legal name.")]
_Lines = Annotated[list[str], typer.Option("--line", help="A line of the address; repeat for more.")]
_City = Annotated[str, typer.Option(help="The city.")]
_Code = Annotated[str, typer.Option(help="The PIN code, or outside India the postal code.")]
_Email = Annotated[str, typer.Option(help="The address for questions about bills.")]


@operator.answering("show")
def show_operator() -> Call:
    """Show the operator's profile."""

    async def find(context: ServiceContext) -> Answer:
        found = await profiles.find_operator(context)
        if found is None:
            raise NotFound("the operator has no profile: `naka operator set`")
        return found

    return find


@operator.answering("set")
def set_operator(  # noqa: PLR0913 - all that a party is
    *,
    name: _Name,
    line: _Lines,
    city: _City,
    postal_code: _Code,
    state: Annotated[str, typer.Option(help="The state's GST code, such as 29.")],
    gstin: Annotated[str, typer.Option(help="The GSTIN.")],
    email: _Email,
    sac: Annotated[str, typer.Option(help="The Service Accounting Code.")] = "998315",
    lut: Annotated[
        str | None, typer.Option(help="The number of the letter of undertaking, to serve customers outside India.")
    ] = None,
) -> Call:
    """Replace the operator's profile. Earlier bills stay as they are."""
    fields = {"legal_name": name, "lines": line, "city": city, "postal_code": postal_code, "state": state}
    new = OperatorBody.model_validate(fields | {"gstin": gstin, "email": email, "sac": sac, "lut_number": lut})
    return lambda context: profiles.set_operator(context, new)


@profile.answering("show")
def show_profile(tenant: Tenant) -> Call:
    """Show a tenant's billing profile."""

    async def find(context: ServiceContext) -> Answer:
        found = await profiles.find_profile(context, tenant_name(tenant))
        if found is None:
            raise NotFound("the tenant has no billing profile")
        return found

    return find


@profile.answering("set", billing=True)
def set_one(  # noqa: PLR0913 - all that a party is
    tenant: Tenant,
    *,
    name: _Name,
    line: _Lines,
    city: _City,
    postal_code: _Code,
    email: _Email,
    country: Annotated[str, typer.Option(help="Its two-letter code.")] = "IN",
    state: Annotated[str | None, typer.Option(help="The state's GST code; none outside India.")] = None,
    gstin: Annotated[str | None, typer.Option(help="The GSTIN, if the tenant is registered.")] = None,
    contact: Annotated[str | None, typer.Option(help="A phone number.")] = None,
) -> Call:
    """Replace a tenant's billing profile. Earlier bills stay as they are."""
    fields = {"legal_name": name, "lines": line, "city": city, "postal_code": postal_code, "country": country}
    new = ProfileBody.model_validate(fields | {"email": email, "state": state, "gstin": gstin, "contact": contact})
    return lambda context: profiles.set_profile(context, tenant_name(tenant), new)
