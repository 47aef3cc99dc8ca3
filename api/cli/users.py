"""`naka user`: the users of a tenant."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.limits import Concurrency, LimitTexts, Nothing, asked_limits
from api.cli.session import AsJson, Desk, at_desk, show, show_all
from api.cli.tenants import Named, named_tenant
from api.routes.admin.limits import LimitsSet, limits_that_hold, replace_limits
from api.routes.admin.users import NewUser, UserItem
from core.tenancy.accounts import create_user, find_user
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
