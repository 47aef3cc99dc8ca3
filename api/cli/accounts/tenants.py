"""`naka tenant`: the operator's customers. A tenant is named by its slug or its id."""

from typing import Annotated

import typer

from api.cli.accounts.limits import Concurrency, LimitTexts, Nothing, parse_replacement
from api.cli.command import Call, Group
from api.cli.options import PlanCode, PlanVersion, Tenant, tenant_name
from api.schemas.accounts.tenants import NewTenant, PlanChoice
from api.services.accounts import tenants

app = Group()


@app.answering("create")
def create(
    slug: Annotated[str, typer.Argument(help="Short name: a-z, 0-9 and hyphens.")],
    name: Annotated[str, typer.Argument(help="Display name.")],
    plan: Annotated[
        str | None,
        typer.Option(help="Start on the version on offer of this plan; without one, on DEFAULT_PLAN."),
    ] = None,
) -> Call:
    """Create a tenant."""
    new = NewTenant(slug=slug, name=name, plan=plan)
    return lambda context: tenants.create_tenant(context, new)


@app.answering("list", "id", "slug", "name", "plan", "created_at")
def list_all() -> Call:
    """List the tenants."""
    return tenants.list_tenants


@app.answering("show")
def show_one(tenant: Tenant) -> Call:
    """Show a tenant."""
    return lambda context: tenants.find_tenant(context, tenant_name(tenant))


@app.answering("limits")
def limits(
    tenant: Tenant, limit: LimitTexts = None, concurrency: Concurrency = None, *, nothing: Nothing = False
) -> Call:
    """Show the limits of a tenant as a whole, or replace them."""
    from api.services.accounts.limits import find_tenant_limits, set_tenant_limits  # noqa: PLC0415 - metering's tables

    wanted, name = parse_replacement(limit, concurrency, nothing=nothing), tenant_name(tenant)
    if wanted is None:
        return lambda context: find_tenant_limits(context, name)
    return lambda context: set_tenant_limits(context, name, wanted)


@app.answering("status")
def status(tenant: Tenant) -> Call:
    """Show what a tenant owes, what is limited because of it, and what restores it."""
    from api.services.billing.standing import find_tenant_status  # noqa: PLC0415 - billing's tables

    name = tenant_name(tenant)
    return lambda context: find_tenant_status(context, name)


@app.answering("plan")
def plan(tenant: Tenant, code: PlanCode, version: PlanVersion = None) -> Call:
    """Change the plan of a tenant, from now on."""
    choice = PlanChoice(code=code, version=version)
    return lambda context: tenants.change_plan(context, tenant_name(tenant), choice)
