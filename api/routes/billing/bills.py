"""Routes of bills and credit notes: JSON, HTML, PDF. The operator sees drafts too, and decides on held ones."""

from fastapi import Response

from api.auth.access import PlatformContext
from api.routes.billing.parameters import HTML, PDF, BillStateWanted, Final, ItemId, OwnContext
from api.routes.parameters import Cursor, PageSize, TenantId, TenantWanted
from api.routes.route import admin_router, own_router
from api.schemas.billing.bills import BillDetail, BillFile, BillItem, BillVoid, Closed, UpcomingItem
from api.schemas.billing.decisions import Decision
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.billing import bills

router, own = admin_router(), own_router()


@router.get("/bills")
async def all_bills(
    *,
    context: PlatformContext,
    tenant_id: TenantWanted = None,
    state: BillStateWanted = None,
    final: Final = False,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[BillItem]:
    """List bills, credit notes and drafts, newest first."""
    return await bills.list_bills(context, tenant=tenant_id, state=state, final=final, before=cursor, size=size)


@router.get("/bills/{bill_id}")
async def one_bill(bill_id: ItemId, context: PlatformContext) -> BillDetail:
    """Show a bill or credit note, with its lines."""
    return await bills.find_bill(context, bill_id)


@router.get("/bills/{bill_id}/document.html", responses=HTML, response_class=Response)
async def bill_as_html(bill_id: ItemId, context: PlatformContext) -> Response:
    """Show a bill or credit note as a page."""
    return _file(await bills.bill_as_html(context, bill_id))


@router.get("/bills/{bill_id}/document.pdf", responses=PDF, response_class=Response)
async def bill_as_pdf(bill_id: ItemId, context: PlatformContext) -> Response:
    """Download a bill or credit note as PDF."""
    return _file(await bills.bill_as_pdf(context, bill_id))


@router.post("/bills/{bill_id}/release")
async def release_bill(bill_id: ItemId, context: PlatformContext) -> BillDetail:
    """Make a held bill final: it gets its number and is collected."""
    return await bills.release_bill(context, bill_id)


@router.post("/bills/{bill_id}/void")
async def void_bill(bill_id: ItemId, body: BillVoid, context: PlatformContext) -> BillDetail:
    """Void a held bill: its usage is never billed, unless `again`."""
    return await bills.void_bill(context, bill_id, body.reason, again=body.again)


@router.post("/bills/{bill_id}/write-off")
async def write_off_bill(bill_id: ItemId, body: Decision, context: PlatformContext) -> BillDetail:
    """Give up what is due of an open bill: its link is cancelled, and the tenant no longer owes it."""
    return await bills.write_off_bill(context, bill_id, body.reason)


@router.post("/tenants/{tenant_id}/close")
async def close_periods(tenant_id: TenantId, context: PlatformContext) -> Closed:
    """Close the tenant's ended periods now, before the worker does."""
    return await bills.close_periods(context, tenant_id)


@own.get("/bills")
async def my_bills(
    context: OwnContext, state: BillStateWanted = None, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[BillItem]:
    """List your bills and credit notes, newest first."""
    return await bills.list_bills(context, state=state, before=cursor, size=size)


@own.get("/bills/{bill_id}")
async def my_bill(bill_id: ItemId, context: OwnContext) -> BillDetail:
    """Show a bill or credit note, with its lines."""
    return await bills.find_bill(context, bill_id)


@own.get("/bills/{bill_id}/document.html", responses=HTML, response_class=Response)
async def my_bill_as_html(bill_id: ItemId, context: OwnContext) -> Response:
    """Show a bill or credit note as a page to print."""
    return _file(await bills.bill_as_html(context, bill_id))


@own.get("/bills/{bill_id}/document.pdf", responses=PDF, response_class=Response)
async def my_bill_as_pdf(bill_id: ItemId, context: OwnContext) -> Response:
    """Download a bill or credit note as PDF."""
    return _file(await bills.bill_as_pdf(context, bill_id))


@own.get("/upcoming")
async def my_upcoming_bill(context: OwnContext) -> UpcomingItem:
    """Show the cost of the current period's overage, were it closed now."""
    return await bills.upcoming_bill(context)


def _file(found: BillFile) -> Response:
    return Response(found.content, media_type=found.media_type, headers=found.headers)
