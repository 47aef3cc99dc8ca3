"""Arguments and options that several commands have."""

from typing import Annotated
from uuid import UUID

import typer

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="A tenant's slug or id.")]
UserId = Annotated[UUID, typer.Argument(metavar="USER_ID", help="A user's id.")]
PlanCode = Annotated[str, typer.Argument(help="The plan's code.")]
PlanVersion = Annotated[int | None, typer.Option(help="Its version; by default the one on offer, or else the newest.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Only of this tenant: its slug or id.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="The number of newest ones to list.")]
Reason = Annotated[str, typer.Option(help="The reason, for the audit log.")]
IN_STATE = typer.Option(help="Only in this state.")


def tenant_name(name: str) -> UUID | str:
    """Parses a tenant's id, or else its slug."""
    try:
        return UUID(name)
    except ValueError:
        return name


def tenant_or_all(name: str | None) -> UUID | str | None:
    """Parses the same; None for every tenant."""
    return None if name is None else tenant_name(name)
