"""`naka key`: API keys. A secret is printed once, when its key is made."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.accounts.users import UserId
from api.cli.command import AsJson, CommandContext, run_command, show, show_all
from api.routes.admin.keys import KeyItem, KeyMade, NewKey, Rotation, end_keys, is_live, issue_key
from core.tenancy.accounts import DEFAULT_SCOPES, find_key, find_user, rotate_key
from core.tenancy.lists import list_keys
from core.tenancy.principal import Scope

app = typer.Typer(no_args_is_help=True, help="Keys: what a request comes with.")

KeyId = Annotated[UUID, typer.Argument(metavar="KEY_ID", help="A key's id.")]
Scopes = Annotated[list[Scope] | None, typer.Option("--scope", help="What it may do; chat and usage:read by default.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Only this model; repeat for more.")]
Expiry = Annotated[str | None, typer.Option("--expires-at", help="When it ends, as 2031-01-01T00:00:00Z.")]


@app.command()
def create(
    user_id: UserId,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Scopes = None,
    model: Models = None,
    expires_at: Expiry = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a key of a user, and print it: once."""
    new = NewKey.model_validate(
        {"name": name, "scopes": scope or list(DEFAULT_SCOPES), "models": model or None, "expires_at": expires_at}
    )

    async def work(context: CommandContext) -> KeyMade:
        user = await find_user(context.session, user_id, tenant_id=None)
        context.changed.append(user.tenant_id)
        return KeyMade.with_secret(await issue_key(context.session, context.actor, user, new, context.settings))

    show(run_command(work), as_json=as_json)


@app.command("list")
def list_all(user_id: UserId, *, as_json: AsJson = False) -> None:
    """List the keys of a user."""

    async def work(context: CommandContext) -> list[KeyItem]:
        user = await find_user(context.session, user_id, tenant_id=None)
        return await KeyItem.listed(context.session, await list_keys(context.session, user))

    columns = ["id", "prefix", "name", "scopes", "expires_at", "revoked_at", "last_used_at", "parent_key_id"]
    show_all(run_command(work), columns, as_json=as_json)


@app.command()
def revoke(
    key_id: KeyId,
    *,
    descendants: Annotated[bool, typer.Option("--descendants", help="End the keys derived from it, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a key at once; the keys derived from it go on, unless they are to end with it."""

    async def work(context: CommandContext) -> list[KeyItem]:
        key = await find_key(context.session, key_id, tenant_id=None)
        ended = await end_keys(context.session, context.actor, key, descendants=descendants)
        context.changed += [each.tenant_id for each in (key, *ended)]
        return [KeyItem.of(each) for each in ended or [key]]

    found = run_command(work)
    if descendants:
        show_all(found, ["id", "prefix", "name", "user_id", "revoked_at"], as_json=as_json)
    else:
        show(found[0], as_json=as_json)


@app.command()
def rotate(
    key_id: KeyId,
    overlap_s: Annotated[int, typer.Option(help="For how many seconds the old key goes on.")] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a successor of a key, and print it: once."""
    wish = Rotation(overlap_s=overlap_s)

    async def work(context: CommandContext) -> KeyMade:
        key = await find_key(context.session, key_id, tenant_id=None)
        context.changed.append(key.tenant_id)
        live = is_live(context.settings)
        return KeyMade.with_secret(
            await rotate_key(context.session, context.actor, key, overlap_s=wish.overlap_s, live=live)
        )

    show(run_command(work), as_json=as_json)
