"""`naka user`: the users of a tenant."""

import asyncio
from typing import Annotated
from uuid import UUID

import typer

from api.cli.limits import Concurrency, LimitTexts, Nothing, asked_limits
from api.cli.session import AsJson, Desk, acting, at_desk, load_database_settings, show, show_all
from api.cli.tenants import Named, named_tenant
from api.routes.admin.limits import LimitsSet, limits_that_hold, replace_limits
from api.routes.admin.privacy import Erasure, exported
from api.routes.admin.users import NewUser, UserItem
from core.database import Database
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

    async def work(desk: Desk) -> UserItem:
        found = await named_tenant(desk.session, tenant)
        return UserItem.of(await create_user(desk.session, desk.actor, found.id, external_id=new.external_id))

    show(at_desk(work), as_json=as_json)


@app.command("list")
def list_all(tenant: Named, *, as_json: AsJson = False) -> None:
    """List the users of a tenant."""

    async def work(desk: Desk) -> list[UserItem]:
        found = await named_tenant(desk.session, tenant)
        return [UserItem.of(user) for user in await list_users(desk.session, found.id)]

    show_all(at_desk(work), ["id", "external_id", "created_at"], as_json=as_json)


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

    async def work(desk: Desk) -> LimitsSet:
        user = await find_user(desk.session, user_id, tenant_id=None)
        if wanted is None:
            return await limits_that_hold(desk.session, desk.settings, user.tenant_id, user.id)
        desk.changed.append(user.tenant_id)
        return await replace_limits(desk.session, desk.actor, user.tenant_id, user.id, wanted)

    show(at_desk(work), as_json=as_json)


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

    async def work(desk: Desk) -> Erasure:
        user = await find_user(desk.session, user_id, tenant_id=None)
        erased = await erase_user(desk.session, desk.actor, user)
        desk.changed.append(user.tenant_id)
        return Erasure(external_id=user.external_id, again=not erased)

    show(at_desk(work), as_json=as_json)


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
