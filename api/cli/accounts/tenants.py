"""`naka tenant`: the operator's customers. A tenant is named by its slug or its id."""

from typing import Annotated

import typer

from api.cli.accounts.limits import Concurrency, LimitTexts, Nothing, parse_replacement, read_limits
from api.cli.command import Call, Group, run_service
from api.cli.options import PlanCode, PlanVersion, Tenant, tenant_name
from api.schemas.accounts.tenants import NewTenant, NewUsers, PlanChoice
from api.services.accounts import tenants
from api.services.context import ServiceContext
from core.errors import Invalid

app = Group()

Make = Annotated[bool | None, typer.Option("--make/--no-make", help="Whether an unknown user is created.")]
PerMinute = Annotated[int | None, typer.Option(help="The most new users in a minute.")]
TagText = Annotated[str, typer.Argument(metavar="KEY=VALUE", help="A tag, as feature=search; its key is declared.")]


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


@app.answering("user-limits")
def user_limits(
    tenant: Tenant, limit: LimitTexts = None, concurrency: Concurrency = None, *, nothing: Nothing = False
) -> Call:
    """Show the limits of each user without its own, or replace them."""
    from api.services.accounts.limits import find_default_limits, set_default_limits  # noqa: PLC0415 - as above

    wanted, name = parse_replacement(limit, concurrency, nothing=nothing), tenant_name(tenant)
    if wanted is None:
        return lambda context: find_default_limits(context, name)
    return lambda context: set_default_limits(context, name, wanted)


@app.answering("new-users")
def new_users(tenant: Tenant, *, make: Make = None, per_minute: PerMinute = None) -> Call:
    """Show whether requests create the users that they name, or set it."""
    name = tenant_name(tenant)

    async def work(context: ServiceContext) -> NewUsers:
        known = await tenants.find_new_users(context, name)
        if make is None and per_minute is None:
            return known
        wanted = NewUsers(
            makes_users=known.makes_users if make is None else make,
            new_users_per_minute=known.new_users_per_minute if per_minute is None else per_minute,
        )
        return await tenants.set_new_users(context, name, wanted)

    return work


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


@app.answering("tag-limits", "key", "value", "limits")
def tag_limits(
    tenant: Tenant,
    key: Annotated[str | None, typer.Option("--key", help="Only the tags with this key.")] = None,
) -> Call:
    """List the tags of a tenant that have limits, and what is used of them."""
    from api.services.accounts.tag_limits import list_tag_limits  # noqa: PLC0415 - metering's tables

    return lambda context: list_tag_limits(context, tenant_name(tenant), key=key)


@app.answering("limit-tag")
def limit_tag(tenant: Tenant, tag: TagText, limit: LimitTexts = None) -> Call:
    """Replace the limits of all requests of a tenant with a tag, as feature=search."""
    from api.schemas.accounts.tag_limits import NewTagLimits  # noqa: PLC0415 - metering's tables
    from api.services.accounts.tag_limits import set_tag_limits  # noqa: PLC0415 - as above

    key, value = _parse_tag(tag)
    wanted = read_limits(limit, None)
    body = NewTagLimits.model_validate({"key": key, "value": value, "limits": wanted.model_dump()["limits"]})
    return lambda context: set_tag_limits(context, tenant_name(tenant), body)


@app.command("unlimit-tag")
def unlimit_tag(tenant: Tenant, tag: TagText) -> None:
    """Remove the limits of a tag."""
    from api.services.accounts.tag_limits import remove_tag_limits  # noqa: PLC0415 - metering's tables

    key, value = _parse_tag(tag)
    run_service(lambda context: remove_tag_limits(context, tenant_name(tenant), key=key, value=value))
    typer.echo("Removed.")


def _parse_tag(text: str) -> tuple[str, str]:
    """The key and the value of `feature=search`. Raises Invalid."""
    key, separator, value = text.partition("=")
    if not separator or not value:
        raise Invalid("write the tag as KEY=VALUE, as feature=search")
    return key, value
