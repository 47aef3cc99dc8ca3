"""Mandates of all tenants or of one, with the latest debits, and their cancel."""

from uuid import UUID

from fastapi import Request
from fastapi.responses import Response

from api.pages.operator.frame import SIZE, Cell, Listing, Reason, Row, Said, money, tenant_cell, with_query
from api.pages.operator.lists import MANDATES, show_page
from api.pages.operator.money import TenantWanted, given
from api.pages.route import page_router
from api.pages.site import Here, see_other
from api.pages.visitor import Operator, Visitor
from api.routes.parameters import Cursor, TenantId
from api.services.accounts.tenants import tenant_names
from api.services.billing import collection, mandates
from billing.models.states import Instrument, MandateState

router = page_router("/operator/mandates")
_DEBITS = 10


@router.get("")
async def mandates_page(
    request: Request,
    visitor: Operator,
    state: MandateState | None = None,
    tenant: TenantWanted = None,
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Mandates, newest first, and the latest debits on them."""
    found = await mandates.list_mandates(visitor.context, tenant=tenant, state=state, before=cursor, size=SIZE)
    debits = None if cursor or state else await _debits(visitor, tenant)
    return await show_page(request, visitor, MANDATES, found, said, debits, state=state, tenant=tenant)


async def _debits(visitor: Visitor, tenant: UUID | None) -> tuple[str, Listing]:
    found = await collection.list_charges(visitor.context, tenant=tenant, instrument=Instrument.MANDATE, size=_DEBITS)
    names = await tenant_names(visitor.context, (each.tenant_id for each in found.items))
    here = Here(visitor.context.zone)
    rows = [
        Row(
            [
                Cell(each.reference, f"/operator/bills/{each.bill_id}"),
                tenant_cell(each.tenant_id, names),
                Cell(each.state, is_state=True, note=each.error or ""),
                money(each.amount_paise),
                Cell(here.at(each.created_at)),
                Cell(here.at(each.ended_at)),
            ]
        )
        for each in found.items
    ]
    columns = ["Debit", "Tenant", "State", "Amount", "Announced", "Ended"]
    older = with_query("/operator/charges", tenant=tenant) if found.items else None
    return "Latest debits", Listing(columns, rows, "No debits yet.", older)


@router.post("/{tenant_id}/end")
async def end(tenant_id: TenantId, visitor: Operator, reason: Reason = "") -> Response:
    """Cancels a tenant's mandate; the worker tells Razorpay."""
    await mandates.end_for_tenant(visitor.context, tenant_id, given(reason))
    return see_other("/operator/mandates?said=mandate_ended")
