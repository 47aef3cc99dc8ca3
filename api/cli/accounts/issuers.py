"""`naka issuer`: issuers of JWTs that a tenant trusts for its own users."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from api.cli.command import Call, Group
from api.cli.options import Tenant, tenant_name
from api.schemas.accounts.issuers import NewIssuer
from api.services.accounts import issuers
from core.errors import Invalid
from core.tenancy.accounts import DEFAULT_SCOPES
from core.tenancy.principal import Scope

app = Group()

Keys = Annotated[str | None, typer.Option("--jwks", help="The URL of its JWKS.")]
Pem = Annotated[Path | None, typer.Option("--pem", help="A file with its public key, instead of a JWKS.")]
UserClaim = Annotated[str, typer.Option("--user-claim", help="The claim that names the user.")]
TagClaims = Annotated[
    list[str] | None, typer.Option("--tag", help="CLAIM=TAG: the tag that a claim becomes; repeat for more.")
]
Scopes = Annotated[list[Scope] | None, typer.Option("--scope", help="A scope; chat and usage:read by default.")]
ScopesClaim = Annotated[str | None, typer.Option("--scopes-claim", help="The claim that names a token's scopes.")]
Leeway = Annotated[int, typer.Option("--leeway-s", help="Seconds by which its clock may differ.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Only this model; repeat for more.")]


@app.answering("add")
def add(  # noqa: PLR0913 - the options of an issuer
    tenant: Tenant,
    issuer: Annotated[str, typer.Argument(help="The `iss` of its tokens.")],
    audience: Annotated[str, typer.Argument(help="The `aud` of its tokens for this service.")],
    *,
    jwks: Keys = None,
    pem: Pem = None,
    user_claim: UserClaim = "sub",
    tag: TagClaims = None,
    scope: Scopes = None,
    scopes_claim: ScopesClaim = None,
    leeway_s: Leeway = 30,
    model: Models = None,
) -> Call:
    """Accept the JWTs of an issuer for a tenant's users."""
    if (jwks is None) == (pem is None):
        raise Invalid("give --jwks or --pem")
    new = NewIssuer.model_validate(
        {
            "issuer": issuer,
            "audience": audience,
            "verification_keys": jwks if pem is None else _read(pem),
            "user_claim": user_claim,
            "tag_claims": dict(each.rpartition("=")[::2] for each in tag or ()),
            "scopes": scope or list(DEFAULT_SCOPES),
            "scopes_claim": scopes_claim,
            "leeway_s": leeway_s,
            "models": model or None,
        }
    )
    return lambda context: issuers.register_issuer(context, tenant_name(tenant), new)


@app.answering("list", "id", "issuer", "audience", "user_claim", "scopes", "verification_keys", "created_at")
def list_all(tenant: Tenant) -> Call:
    """List the issuers of a tenant."""
    return lambda context: issuers.list_issuers(context, tenant_name(tenant))


@app.answering("remove")
def remove(issuer_id: Annotated[UUID, typer.Argument(metavar="ISSUER_ID", help="An issuer's id.")]) -> Call:
    """Remove an issuer: its tokens start no request from now on."""
    return lambda context: issuers.remove_issuer(context, issuer_id)


def _read(path: Path) -> str:
    """The text of a file. Raises Invalid."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise Invalid(f"{path} cannot be read") from error
