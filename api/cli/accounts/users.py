"""`naka user`: the users of a tenant."""

from typing import Annotated

import typer

from api.cli.accounts.limits import Concurrency, LimitTexts, Nothing, parse_replacement
from api.cli.command import Call, Group, run_service
from api.cli.options import Tenant, UserId, tenant_name
from api.schemas.accounts.users import NewUser
from api.services.accounts import users
from api.services.context import ServiceContext

app = Group()


@app.answering("create")
def create(
    tenant: Tenant, external_id: Annotated[str, typer.Argument(help="The tenant's own name for the user.")]
) -> Call:
    """Create a user of a tenant."""
    new = NewUser(external_id=external_id)
    return lambda context: users.create_user(context, tenant_name(tenant), new)


@app.answering("list", "id", "external_id", "created_at", "disabled_at")
def list_all(tenant: Tenant) -> Call:
    """List the users of a tenant."""
    return lambda context: users.list_users(context, tenant_name(tenant))


@app.answering("limits")
def limits(
    user_id: UserId, limit: LimitTexts = None, concurrency: Concurrency = None, *, nothing: Nothing = False
) -> Call:
    """Show the limits of a user, or replace them."""
    from api.services.accounts.limits import find_user_limits, set_user_limits  # noqa: PLC0415 - metering's tables

    wanted = parse_replacement(limit, concurrency, nothing=nothing)
    if wanted is None:
        return lambda context: find_user_limits(context, user_id)
    return lambda context: set_user_limits(context, user_id, wanted)


@app.answering("disable")
def disable(user_id: UserId) -> Call:
    """Refuse a user's requests from now on, whatever key they come with."""
    return lambda context: users.set_disabled(context, user_id, disabled=True)


@app.answering("enable")
def enable(user_id: UserId) -> Call:
    """Allow a disabled user's requests again."""
    return lambda context: users.set_disabled(context, user_id, disabled=False)


@app.answering("erase")
def erase(user_id: UserId, *, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> Call:
    """Erase the person behind a user: keys end, names and addresses go; usage and bills stay."""
    from api.services.accounts import privacy  # noqa: PLC0415 - imports the usage reports

    if not yes:
        typer.confirm(f"Erase the user {user_id}? This cannot be undone", abort=True)
    return lambda context: privacy.erase_user(context, user_id)


@app.command()
def export(user_id: UserId) -> None:
    """Print everything known about a user, as JSON."""
    from api.services.accounts import privacy  # noqa: PLC0415 - imports the usage reports

    async def work(context: ServiceContext) -> None:
        async for piece in privacy.export_user(context, user_id):
            typer.echo(piece, nl=False)
        typer.echo()

    run_service(work)
