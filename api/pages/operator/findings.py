"""What software alone cannot put right: findings about money, until a person has looked."""

from typing import Annotated, Any

from fastapi import Form, Query, Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep, actor_of
from api.pages.operator.frame import SIZE, Act, Cell, Listing, Reason, Row, Said, filters, show_list, tenant_cells
from api.pages.operator.money import given, older
from api.pages.route import page_router
from api.pages.site import Here, see_other, words
from api.pages.visitor import Operator
from billing.payments.lists import close_finding, list_findings

router = page_router("/operator")


@router.get("/findings")
async def findings(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    state: Annotated[str, Query(pattern="^(|closed)$")] = "",
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    said: Said = "",
) -> Response:
    """What a person should look at, newest first."""
    here, closed = Here(runtime.calendar.zone), state == "closed"
    async with runtime.database.session() as session:
        rows = await list_findings(session, closed=closed, before=cursor, limit=SIZE + 1)
        tenants = await tenant_cells(session, (finding.tenant_id for finding in rows))
    listing = Listing(
        ["Finding", "Tenant", "What is known", "Seen"],
        [
            Row(
                [
                    Cell(words(finding.kind), note=finding.key),
                    tenants[finding.tenant_id],
                    Cell(_detail(finding.detail)),
                    Cell(here.at(finding.seen_ms)),
                ],
                () if closed else [_close(finding.key)],
            )
            for finding in rows[:SIZE]
        ],
        "Nothing to look at.",
        older("/operator/findings", rows, "key", state=state),
        filters("/operator/findings", {"": "Open", "closed": "Closed"}, state),
    )
    return show_list(request, visitor, "Findings", listing, said, "What software alone cannot put right.")


def _close(key: str) -> Act:
    action = "/operator/findings/close"
    return Act("Close", "Has this been looked at?", action, wants_reason=True, fields={"key": key})


@router.post("/findings/close")
async def close_one(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    key: Annotated[str, Form(max_length=200)] = "",
    reason: Reason = "",
) -> Response:
    """Says that it was looked at."""
    async with runtime.database.session() as session:
        await close_finding(session, actor_of(request, visitor.principal), key, given(reason))
    return see_other("/operator/findings?said=closed")


def _detail(detail: dict[str, Any]) -> str:
    return ", ".join(f"{words(name)} {value}" for name, value in detail.items() if not isinstance(value, dict | list))
