"""Bills as they are answered, to their tenant and to the operator: JSON, HTML, PDF."""

import asyncio
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Path, Query, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.fields import EXAMPLE_ID
from billing.context import BillingContext
from billing.documents.html import render_html
from billing.documents.invoice import Document
from billing.gst.rupees import rupees
from billing.invoicing.bill_list import find_bill, live_charges
from billing.invoicing.issuing import document_of
from billing.models import Bill, Charge
from billing.models.bills import due_of
from core.clock import to_iso
from core.errors import NotFound
from core.tenancy.audit import Actor, record_read


class BillState(StrEnum):
    """The states of a document (`billing.models.bills.Bill`)."""

    HELD = "held"
    OPEN = "open"
    PAID = "paid"
    VOID = "void"
    WAIVED = "waived"
    ISSUED = "issued"
    CREDITED = "credited"


BillId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
StateWanted = Annotated[BillState | None, Query(description="Only these", examples=["open"])]
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
PDF: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}
}


class BillItem(BaseModel):
    """A document: amounts in paise. `due_paise` is what is to be paid still; `pay_url` by when, `due_at`, it is.

    `number` is null while it is held, waived or void. A credit note's amounts are negative; it `refers_to` a bill.
    """

    id: UUID
    tenant_id: UUID
    kind: Literal["base", "overage", "credit_note"]
    state: BillState
    number: str | None
    period: str
    starts_at: str
    ends_at: str
    plan: str
    plan_version: int
    taxable_paise: int
    total_paise: int
    credited_paise: int
    paid_paise: int
    due_paise: int
    total: str
    refers_to: UUID | None
    reason: str | None
    issued_at: str | None
    due_at: str | None
    paid_at: str | None
    pay_url: str | None

    @classmethod
    def of(cls, bill: Bill, charge: Charge | None = None) -> Self:
        """As it is answered; the link is that of the charge which is live."""
        return cls(**_shown(bill, charge))


class BillDetail(BillItem):
    """The same with its lines, its tax and its parties."""

    lines: list[dict[str, Any]]
    tax: list[dict[str, Any]]
    customer: dict[str, Any]
    supplier: dict[str, Any]

    @classmethod
    def of(cls, bill: Bill, charge: Charge | None = None) -> Self:
        """As it is answered."""
        return cls(
            **_shown(bill, charge), lines=bill.lines, tax=bill.tax, customer=bill.customer, supplier=bill.supplier
        )


def _shown(bill: Bill, charge: Charge | None) -> dict[str, Any]:
    return {
        "id": bill.id,
        "tenant_id": bill.tenant_id,
        "kind": bill.kind,
        "state": bill.state,
        "number": bill.number,
        "period": bill.period_id,
        "starts_at": iso(bill.starts_ms),
        "ends_at": iso(bill.ends_ms),
        "plan": bill.plan_code,
        "plan_version": bill.plan_version,
        "taxable_paise": bill.taxable_paise,
        "total_paise": bill.total_paise,
        "credited_paise": bill.credited_paise,
        "paid_paise": bill.paid_paise,
        "due_paise": due_of(bill),
        "total": rupees(bill.total_paise),
        "refers_to": bill.refers_to,
        "reason": bill.reason,
        "issued_at": iso(bill.issued_ms),
        "due_at": iso(bill.due_ms),
        "paid_at": iso(bill.paid_ms),
        "pay_url": None if charge is None or due_of(bill) <= 0 else charge.short_url,
    }


def iso(at_ms: int | None) -> str | None:
    """A moment in UTC."""
    return None if at_ms is None else to_iso(at_ms)


async def detail_of(
    billing: BillingContext, bill_id: UUID, *, tenant_id: UUID | None, reader: Actor | None = None
) -> BillDetail:
    """A document with everything on it. Raises NotFound; of a tenant's own only what is final.

    `reader`: who reads it, for the audit log; None where it answers a change that is in the log itself.
    """
    async with billing.database.session(tenant_id=tenant_id) as session:
        bill = await _reach(session, bill_id, tenant_id, reader)
        charges = await live_charges(session, [bill])
    return BillDetail.of(bill, charges.get(bill.id))


async def _reach(session: AsyncSession, bill_id: UUID, tenant_id: UUID | None, reader: Actor | None) -> Bill:
    bill = await find_bill(session, bill_id, tenant_id=tenant_id)
    if tenant_id is not None and bill.number is None:
        raise NotFound("no such bill")
    record_read(session, reader, "bill", tenant_id=bill.tenant_id, target=f"bill:{bill.id}")
    return bill


async def html_of(billing: BillingContext, bill_id: UUID, *, tenant_id: UUID | None, reader: Actor) -> Response:
    """A document as a page that runs and fetches nothing. Raises NotFound."""
    async with billing.database.session(tenant_id=tenant_id) as session:
        bill = await _reach(session, bill_id, tenant_id, reader)
        shown = render_html(await document_of(session, billing, bill))
    headers = {
        "content-disposition": f'inline; filename="{_file_name(bill)}.html"',
        "content-security-policy": _PAGE_POLICY,
        "x-content-type-options": "nosniff",
    }
    return Response(shown, media_type="text/html; charset=utf-8", headers=headers)


async def pdf_of(billing: BillingContext, bill_id: UUID, *, tenant_id: UUID | None, reader: Actor) -> Response:
    """The same as PDF; it is made in a thread, for it takes its time."""
    async with billing.database.session(tenant_id=tenant_id) as session:
        bill = await _reach(session, bill_id, tenant_id, reader)
        document = await document_of(session, billing, bill)
    headers = {"content-disposition": f'attachment; filename="{_file_name(bill)}.pdf"'}
    return Response(await asyncio.to_thread(_pdf, document), media_type="application/pdf", headers=headers)


def _pdf(document: Document) -> bytes:
    """In a thread, where its library may take its time to load, too."""
    from billing.documents.pdf import render_pdf  # noqa: PLC0415 - as above: it would slow down every start

    return render_pdf(document)


def _file_name(bill: Bill) -> str:
    """The number, without what a file's name cannot have."""
    return (bill.number or f"draft-{bill.id}").replace("/", "-")
