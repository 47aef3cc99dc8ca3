"""`naka key`: API keys. A secret is printed once, when its key is created."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.command import Answer, Call, Group
from api.cli.options import UserId
from api.schemas.accounts.keys import NewKey, Rotation
from api.services.accounts import keys
from api.services.context import ServiceContext
from core.tenancy.accounts import DEFAULT_SCOPES
from core.tenancy.principal import Scope

app = Group()

KeyId = Annotated[UUID, typer.Argument(metavar="KEY_ID", help="A key's id.")]
Scopes = Annotated[list[Scope] | None, typer.Option("--scope", help="A scope; chat and usage:read by default.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Only this model; repeat for more.")]
Expiry = Annotated[str | None, typer.Option("--expires-at", help="Expiry, as 2031-01-01T00:00:00Z.")]


@app.answering("create")
def create(
    user_id: UserId,
    name: Annotated[str, typer.Argument(help="Its purpose.")],
    *,
    scope: Scopes = None,
    model: Models = None,
    expires_at: Expiry = None,
) -> Call:
    """Create a key for a user, and print it once."""
    new = NewKey.model_validate(
        {"name": name, "scopes": scope or list(DEFAULT_SCOPES), "models": model or None, "expires_at": expires_at}
    )
    return lambda context: keys.create_key(context, user_id, new)


@app.answering("list", "id", "prefix", "name", "scopes", "expires_at", "revoked_at", "last_used_at", "parent_key_id")
def list_all(user_id: UserId) -> Call:
    """List the keys of a user."""
    return lambda context: keys.list_keys(context, user_id)


@app.answering("revoke", "id", "prefix", "name", "user_id", "revoked_at")
def revoke(
    key_id: KeyId,
    *,
    descendants: Annotated[bool, typer.Option("--descendants", help="Also revoke the keys derived from it.")] = False,
) -> Call:
    """Revoke a key at once. Keys derived from it stay valid without --descendants."""

    async def end(context: ServiceContext) -> Answer:
        ended = await keys.revoke_key(context, key_id, descendants=descendants)
        return ended if descendants else ended[0]

    return end


@app.answering("rotate")
def rotate(
    key_id: KeyId, overlap_s: Annotated[int, typer.Option(help="Seconds for which the old key stays valid.")] = 0
) -> Call:
    """Create a successor of a key, and print it once."""
    rotation = Rotation(overlap_s=overlap_s)
    return lambda context: keys.rotate_key(context, key_id, rotation)
