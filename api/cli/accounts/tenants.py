"""`naka tenant`: the customers of the operator. A tenant is named by its slug or its id."""

from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from api.cli.accounts.limits import Concurrency, LimitTexts, Nothing, asked_limits
from api.cli.command import AsJson, CommandContext, run_command, run_service, show, show_all
from api.routes.admin.limits import LimitsSet, limits_that_hold, replace_limits
from api.schemas.accounts.tenants import NewTenant, PlanChoice
from api.services.accounts import tenants
from core.tenancy.accounts import find_tenant
from core.tenancy.models import Tenant

app = typer.Typer(no_args_is_help=True, help="Tenants: the customers of the operator.")

Named = Annotated[str, typer.Argument(metavar="TENANT", help="A tenant's slug or id.")]


def tenant_name(name: str) -> UUID | str:
    """A tenant's id, or else its slug."""
    try:
        return UUID(name)
    except ValueError:
        return name


async def named_tenant(session: AsyncSession, name: str) -> Tenant:
    """The tenant with this id or slug. Raises NotFound."""
    try:
        return await find_tenant(session, UUID(name))
    except ValueError:
        return await find_tenant(session, name)


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="Short name: a-z, 0-9 and hyphens.")],
    name: Annotated[str, typer.Argument(help="The name that people read.")],
    plan: Annotated[
        str | None,
        typer.Option(
            help="Start on the newest version of this plan. Without a plan the DEFAULT_... settings limit it."
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a tenant."""
    new = NewTenant(slug=slug, name=name, plan=plan)
    show(run_service(lambda context: tenants.create_tenant(context, new)), as_json=as_json)


@app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List the tenants."""
    found = run_service(tenants.list_all_tenants)
    show_all(found, ["id", "slug", "name", "plan", "created_at"], as_json=as_json)


@app.command("show")
def show_one(tenant: Named, *, as_json: AsJson = False) -> None:
    """Show a tenant."""
    show(run_service(lambda context: tenants.find_tenant(context, tenant_name(tenant))), as_json=as_json)


@app.command()
def limits(
    tenant: Named,
    limit: LimitTexts = None,
    concurrency: Concurrency = None,
    *,
    nothing: Nothing = False,
    as_json: AsJson = False,
) -> None:
    """Show the limits of a tenant as a whole, or replace them."""
    wanted = asked_limits(limit, concurrency, nothing=nothing)

    async def work(context: CommandContext) -> LimitsSet:
        found = await named_tenant(context.session, tenant)
        if wanted is None:
            return await limits_that_hold(context.session, context.settings, found.id, found.id)
        context.changed.append(found.id)
        return await replace_limits(context.session, context.actor, found.id, found.id, wanted)

    show(run_command(work), as_json=as_json)


@app.command()
def plan(
    tenant: Named,
    code: Annotated[str, typer.Argument(help="The plan's code.")],
    version: Annotated[int | None, typer.Option(help="Its version; the newest when not given.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Put a tenant on a plan, from now on."""
    choice = PlanChoice(code=code, version=version)
    show(run_service(lambda context: tenants.change_plan(context, tenant_name(tenant), choice)), as_json=as_json)
