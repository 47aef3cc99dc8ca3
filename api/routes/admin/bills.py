"""Bills over all tenants, and the operator's word on those that are held. For platform admins."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from api.auth.access import PlatformAdmin, RuntimeDep, actor_of
from api.routes.admin.corrections import Reason
from api.routes.admin.scope import reach_tenant
from api.routes.bill_items import HTML, PDF, BillDetail, BillId, BillItem, StateWanted, detail_of, html_of, pdf_of
from api.routes.parameters import Cursor, PageSize, TenantId, TenantWanted
from api.schemas.fields import Body, example
from api.schemas.pages import DEFAULT_SIZE, Page, page
from billing.invoicing.bill_list import list_bills, live_charges
from billing.invoicing.held_bills import release, void
from billing.invoicing.period_close import close_tenant

router = APIRouter()

Final = Annotated[bool, Query(description="Only those that have a number", examples=[False])]


class BillVoid(Body):
    """Why a held bill is let go. `again`: it is not forgiven, its period is priced afresh at once."""

    model_config = example(reason="agreed with the customer", again=False)

    reason: Reason
    again: bool = False


class Closed(BaseModel):
    """How many periods were closed, or closed again."""

    closed: int


@router.get("/bills")
async def all_bills(
    *,
    principal: PlatformAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    state: StateWanted = None,
    final: Final = False,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[BillItem]:
    """Bills, credit notes and drafts, newest first."""
    async with runtime.database.session() as session:
        if tenant_id is not None:
            await reach_tenant(session, principal, tenant_id)
        rows = await list_bills(session, tenant_id=tenant_id, state=state, final=final, before=cursor, limit=size + 1)
        charges = await live_charges(session, rows)
    return page(rows, size, lambda bill: BillItem.of(bill, charges.get(bill.id)))


@router.get("/bills/{bill_id}")
async def one_bill(bill_id: BillId, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> BillDetail:
    """A bill or credit note, with its lines."""
    return await detail_of(runtime.billing, bill_id, tenant_id=None, reader=actor_of(request, principal))


@router.get("/bills/{bill_id}/document.html", responses=HTML, response_class=Response)
async def bill_as_html(bill_id: BillId, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> Response:
    """A bill or credit note as a page."""
    return await html_of(runtime.billing, bill_id, tenant_id=None, reader=actor_of(request, principal))


@router.get("/bills/{bill_id}/document.pdf", responses=PDF, response_class=Response)
async def bill_as_pdf(bill_id: BillId, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> Response:
    """A bill or credit note as PDF."""
    return await pdf_of(runtime.billing, bill_id, tenant_id=None, reader=actor_of(request, principal))


@router.post("/bills/{bill_id}/release")
async def release_bill(bill_id: BillId, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> BillDetail:
    """Make a held bill final: it gets its number, and is collected."""
    await release(runtime.billing, actor_of(request, principal), bill_id)
    return await detail_of(runtime.billing, bill_id, tenant_id=None)


@router.post("/bills/{bill_id}/void")
async def void_bill(
    bill_id: BillId, body: BillVoid, principal: PlatformAdmin, runtime: RuntimeDep, request: Request
) -> BillDetail:
    """Let a held bill go: forgiven for good, unless `again`."""
    await void(runtime.billing, actor_of(request, principal), bill_id, body.reason, again=body.again)
    return await detail_of(runtime.billing, bill_id, tenant_id=None)


@router.post("/tenants/{tenant_id}/close")
async def close_periods(tenant_id: TenantId, principal: PlatformAdmin, runtime: RuntimeDep) -> Closed:
    """Close the tenant's periods that are due, now; what the worker does by itself."""
    async with runtime.database.session() as session:
        await reach_tenant(session, principal, tenant_id)
    return Closed(closed=await close_tenant(runtime.billing, tenant_id))
