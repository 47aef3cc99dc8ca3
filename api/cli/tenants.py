"""`naka tenant`: the customers of the operator. A tenant is named by its slug or its id."""

from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from api.cli.limits import Concurrency, LimitTexts, Nothing, asked_limits
from api.cli.session import AsJson, Desk, at_desk, show, show_all
from api.routes.admin.limits import LimitsSet, limits_that_hold, replace_limits
from api.routes.admin.tenants import NewTenant, PlanChoice, TenantItem, change_plan, open_tenant
from core.tenancy.accounts import find_tenant
from core.tenancy.lists import list_tenants
from core.tenancy.models import Tenant

app = typer.Typer(no_args_is_help=True, help="Tenants: the customers of the operator.")

Named = Annotated[str, typer.Argument(metavar="TENANT", help="A tenant's slug or id.")]


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

    async def work(desk: Desk) -> TenantItem:
        return TenantItem.of(await open_tenant(desk.session, desk.actor, new, desk.zone))

    show(at_desk(work), as_json=as_json)


@app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List the tenants."""

    async def work(desk: Desk) -> list[TenantItem]:
        return [TenantItem.of(tenant) for tenant in await list_tenants(desk.session)]

    show_all(at_desk(work), ["id", "slug", "name", "plan", "created_at"], as_json=as_json)


@app.command("show")
def show_one(tenant: Named, *, as_json: AsJson = False) -> None:
    """Show a tenant."""

    async def work(desk: Desk) -> TenantItem:
        return TenantItem.of(await named_tenant(desk.session, tenant))

    show(at_desk(work), as_json=as_json)


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

    async def work(desk: Desk) -> LimitsSet:
        found = await named_tenant(desk.session, tenant)
        if wanted is None:
            return await limits_that_hold(desk.session, desk.settings, found.id, found.id)
        desk.changed.append(found.id)
        return await replace_limits(desk.session, desk.actor, found.id, found.id, wanted)

    show(at_desk(work), as_json=as_json)


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

    async def work(desk: Desk) -> TenantItem:
        found = await named_tenant(desk.session, tenant)
        changed = await change_plan(desk.session, desk.actor, found.id, choice, desk.zone)
        desk.changed.append(changed.id)
        return TenantItem.of(changed)

    show(at_desk(work), as_json=as_json)
