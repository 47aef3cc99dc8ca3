"""The tenant's bills and credit notes, each as JSON, HTML or PDF, and what the present period would cost.

A tenant sees what is final (it has a number); drafts are the operator's. The payment link of an open one is shown here
and nowhere else.
"""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.auth.access import RuntimeDep, TenantAdmin, actor_of
from api.routes.bill_items import HTML, PDF, BillDetail, BillId, BillItem, StateWanted, detail_of, html_of, iso, pdf_of
from api.routes.parameters import Cursor, PageSize
from api.schemas.pages import DEFAULT_SIZE, Page, page
from billing.gst.rupees import rupees
from billing.invoicing.bill_list import list_bills, live_charges
from billing.invoicing.preview import upcoming
from core.clock import now_ms

router = APIRouter()


class UpcomingItem(BaseModel):
    """What the present period's usage past the allowance would cost, were it closed now. Not a demand.

    `is_taxed` is false while there is no billing profile to say how; a negative amount would be a credit note.
    """

    period: str
    kind: str
    starts_at: str
    ends_at: str
    plan: str
    plan_version: int
    lines: list[dict[str, Any]]
    taxable_paise: int
    tax: list[dict[str, Any]]
    total_paise: int
    total: str
    is_taxed: bool


@router.get("/bills")
async def my_bills(
    principal: TenantAdmin,
    runtime: RuntimeDep,
    state: StateWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[BillItem]:
    """The tenant's bills and credit notes, newest first."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        rows = await list_bills(
            session, tenant_id=principal.tenant_id, state=state, final=True, before=cursor, limit=size + 1
        )
        charges = await live_charges(session, rows)
    return page(rows, size, lambda bill: BillItem.of(bill, charges.get(bill.id)))


@router.get("/bills/{bill_id}")
async def my_bill(bill_id: BillId, principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> BillDetail:
    """A bill or credit note, with its lines."""
    reader = actor_of(request, principal)
    return await detail_of(runtime.billing, bill_id, tenant_id=principal.tenant_id, reader=reader)


@router.get("/bills/{bill_id}/document.html", responses=HTML, response_class=Response)
async def my_bill_as_html(bill_id: BillId, principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> Response:
    """A bill or credit note as a page that prints well."""
    reader = actor_of(request, principal)
    return await html_of(runtime.billing, bill_id, tenant_id=principal.tenant_id, reader=reader)


@router.get("/bills/{bill_id}/document.pdf", responses=PDF, response_class=Response)
async def my_bill_as_pdf(bill_id: BillId, principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> Response:
    """A bill or credit note as PDF."""
    reader = actor_of(request, principal)
    return await pdf_of(runtime.billing, bill_id, tenant_id=principal.tenant_id, reader=reader)


@router.get("/upcoming")
async def my_upcoming_bill(principal: TenantAdmin, runtime: RuntimeDep) -> UpcomingItem:
    """What the present period's usage would cost, were it closed now."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        found = await upcoming(session, runtime.billing, principal.tenant_id, now_ms())
    period = found.period
    return UpcomingItem(
        period=period.period_id,
        kind=period.kind,
        starts_at=iso(period.starts_ms) or "",
        ends_at=iso(period.ends_ms) or "",
        plan=period.plan_code,
        plan_version=period.plan_version,
        lines=found.lines,
        taxable_paise=found.taxable_paise,
        tax=found.tax,
        total_paise=found.total_paise,
        total=rupees(found.total_paise),
        is_taxed=found.is_taxed,
    )
