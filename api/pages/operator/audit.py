"""The audit log: who changed what, when, from what to what."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from fastapi.responses import Response

from api.pages.operator.frame import SIZE, Cell, Listing, Row, show, tenant_cell, with_query
from api.pages.route import page_router
from api.pages.site import Here, words
from api.pages.visitor import Operator
from api.routes.parameters import Cursor
from api.services.accounts.audit import list_audit
from api.services.accounts.tenants import tenant_names

router = page_router("/operator/audit")
_LONGEST = 60
Text = Annotated[str, Query(max_length=100)]


@router.get("")
async def audit_log(
    request: Request,
    visitor: Operator,
    tenant_id: Annotated[UUID | None, Query(alias="tenant")] = None,
    action: Text = "",
    actor: Text = "",
    cursor: Cursor = None,
) -> Response:
    """Changes, newest first; `action` and `actor` are prefixes."""
    found = await list_audit(visitor.context, tenant_id=tenant_id, before=cursor, size=SIZE, action=action, actor=actor)
    names = await tenant_names(visitor.context, (entry.tenant_id for entry in found.items))
    here = Here(visitor.context.zone)
    rows = [
        Row(
            [
                Cell(here.at(entry.at)),
                Cell(entry.actor),
                Cell(words(entry.action)),
                Cell(entry.target),
                tenant_cell(entry.tenant_id, names),
                Cell(difference(entry.before, entry.after)),
            ]
        )
        for entry in found.items
    ]
    listing = Listing(
        ["When", "Actor", "Action", "Target", "Tenant", "Change"],
        rows,
        "No matching changes." if found.next is None else "No matching changes on this page. Go on to older ones.",
        found.next and with_query("/operator/audit", cursor=found.next, tenant=tenant_id, action=action, actor=actor),
    )
    return show(request, "audit", visitor, listing=listing, action=action, actor=actor, tenant_id=tenant_id)


def difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """The fields that differ, in a line; long values are cut."""
    was, now = before or {}, after or {}
    differing = [name for name in dict.fromkeys([*was, *now]) if was.get(name) != now.get(name)]
    return "; ".join(
        f"{words(name)}: {f'{_short(was[name])} → ' if name in was else ''}{_short(now.get(name))}"
        for name in differing
    )


def _short(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(str(each) for each in value)
    text = "–" if value is None else str(value)  # noqa: RUF001 - a dash for nothing
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
