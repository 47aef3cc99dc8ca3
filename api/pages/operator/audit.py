"""The audit log: who changed what, when, from what to what."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.pages.operator.frame import SIZE, Cell, Listing, Row, show, tenant_cells, with_query
from api.pages.route import page_router
from api.pages.site import Here, words
from api.pages.visitor import Operator
from api.routes.parameters import Cursor
from core.tenancy.lists import list_audit

router = page_router("/operator/audit")
_LONGEST = 60
Text = Annotated[str, Query(max_length=100)]


@router.get("")
async def audit_log(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    tenant_id: Annotated[UUID | None, Query(alias="tenant")] = None,
    action: Text = "",
    actor: Text = "",
    cursor: Cursor = None,
) -> Response:
    """Changes, newest first; `action` and `actor` are the beginnings of theirs."""
    here = Here(runtime.calendar.zone)
    async with runtime.database.session() as session:
        found = await list_audit(session, tenant_id=tenant_id, before=cursor, limit=SIZE, action=action, actor=actor)
        tenants = await tenant_cells(session, (entry.tenant_id for entry in found.rows))
    kept = {"tenant": tenant_id, "action": action, "actor": actor}
    listing = Listing(
        ["When", "Who", "Did", "To", "Tenant", "What changed"],
        [
            Row(
                [
                    Cell(here.at(entry.at)),
                    Cell(entry.actor),
                    Cell(words(entry.action)),
                    Cell(entry.target),
                    tenants[entry.tenant_id],
                    Cell(difference(entry.before, entry.after)),
                ]
            )
            for entry in found.rows
        ],
        "No change fits this." if found.next is None else "No change among these fits this: go on to older ones.",
        with_query("/operator/audit", cursor=found.next, **kept) if found.next is not None else None,
    )
    return show(request, "audit", visitor, listing=listing, action=action, actor=actor, tenant_id=tenant_id)


def difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """What is other than before, in a line; long values are cut."""
    was, now = before or {}, after or {}
    parts = []
    for name in dict.fromkeys([*was, *now]):
        if was.get(name) == now.get(name):
            continue
        parts.append(f"{words(name)}: {_short(was[name])} → {_short(now.get(name))}" if name in was
                     else f"{words(name)}: {_short(now[name])}")  # fmt: skip
    return "; ".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(str(each) for each in value)
    text = "–" if value is None else str(value)  # noqa: RUF001 - a dash for nothing
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
