"""`naka user`: the users of a tenant."""

import asyncio
from typing import Annotated
from uuid import UUID

import typer

from api.cli.accounts.limits import Concurrency, LimitTexts, Nothing, asked_limits
from api.cli.accounts.tenants import Named, named_tenant
from api.cli.command import AsJson, CommandContext, acting, load_database_settings, run_command, show, show_all
from api.routes.admin.limits import LimitsSet, limits_that_hold, replace_limits
from api.routes.admin.privacy import Erasure, exported
from api.routes.admin.users import NewUser, UserItem
from core.postgres.database import Database
from core.settings import Settings
from core.tenancy.accounts import create_user, find_user
from core.tenancy.erasure import erase_user
from core.tenancy.lists import list_users

app = typer.Typer(no_args_is_help=True, help="Users: whom limits and reports tell apart.")

UserId = Annotated[UUID, typer.Argument(metavar="USER_ID", help="A user's id.")]


@app.command()
def create(
    tenant: Named,
    external_id: Annotated[str, typer.Argument(help="The tenant's own name for the user.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Make a user of a tenant."""
    new = NewUser(external_id=external_id)

    async def work(context: CommandContext) -> UserItem:
        found = await named_tenant(context.session, tenant)
        return UserItem.of(await create_user(context.session, context.actor, found.id, external_id=new.external_id))

    show(run_command(work), as_json=as_json)


@app.command("list")
def list_all(tenant: Named, *, as_json: AsJson = False) -> None:
    """List the users of a tenant."""

    async def work(context: CommandContext) -> list[UserItem]:
        found = await named_tenant(context.session, tenant)
        return [UserItem.of(user) for user in await list_users(context.session, found.id)]

    show_all(run_command(work), ["id", "external_id", "created_at"], as_json=as_json)


@app.command()
def limits(
    user_id: UserId,
    limit: LimitTexts = None,
    concurrency: Concurrency = None,
    *,
    nothing: Nothing = False,
    as_json: AsJson = False,
) -> None:
    """Show the limits of a user, or replace them."""
    wanted = asked_limits(limit, concurrency, nothing=nothing)

    async def work(context: CommandContext) -> LimitsSet:
        user = await find_user(context.session, user_id, tenant_id=None)
        if wanted is None:
            return await limits_that_hold(context.session, context.settings, user.tenant_id, user.id)
        context.changed.append(user.tenant_id)
        return await replace_limits(context.session, context.actor, user.tenant_id, user.id, wanted)

    show(run_command(work), as_json=as_json)


@app.command()
def erase(
    user_id: UserId,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase the person behind a user: keys end, names and addresses go; usage and bills stay."""
    if not yes:
        typer.confirm(f"Erase the user {user_id}? This cannot be taken back", abort=True)

    async def work(context: CommandContext) -> Erasure:
        user = await find_user(context.session, user_id, tenant_id=None)
        erased = await erase_user(context.session, context.actor, user)
        context.changed.append(user.tenant_id)
        return Erasure(external_id=user.external_id, again=not erased)

    show(run_command(work), as_json=as_json)


@app.command()
def export(user_id: UserId) -> None:
    """Print everything that is known about a user, as JSON."""
    asyncio.run(_export(load_database_settings(), user_id))


async def _export(settings: Settings, user_id: UUID) -> None:
    database = Database(settings.database_url, pool_size=1, timeout_s=settings.store_deadline_s)
    try:
        async with database.session() as session:
            user = await find_user(session, user_id, tenant_id=None)
        async for chunk in exported(database, user, acting()):
            typer.echo(chunk, nl=False)
        typer.echo()
    finally:
        await database.close()
