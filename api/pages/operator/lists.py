"""The operator's lists: columns, filters and actions of each, declared once and shown as one kind of table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from api.pages.operator.frame import Act, Cell, Listing, Row, filters, money, show_list, tenant_cell, with_query
from api.pages.site import Here, words
from api.pages.visitor import Visitor
from api.schemas.billing.bills import BillItem
from api.schemas.billing.collection import ChargeItem, FindingItem, RefundItem
from api.schemas.billing.mandates import TenantMandate
from api.schemas.billing.webhooks import EventItem
from api.schemas.pages import Page
from api.services.accounts.tenants import tenant_names

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class OperatorList(Generic[T]):
    """A list at `path`. `columns`: title and cell of an item; a cell of None is the tenant's name."""

    path: str
    title: str
    columns: Mapping[str, Callable[[T, Here], Cell] | None]
    states: Mapping[str, str]
    empty: str
    lead: str = ""
    acts: Callable[[T], Sequence[Act]] = lambda _: ()
    page_acts: Callable[[Sequence[T]], Sequence[Act]] = field(default=lambda _: ())


async def show_page(
    request: Request,
    visitor: Visitor,
    declared: OperatorList[T],
    found: Page[T],
    said: str,
    beside: tuple[str, Listing] | None = None,
    **chosen: Any,
) -> Response:
    """A page of a list. `chosen`: the filters in its URL, `state` among them. `beside`: a second table, with title."""
    names = await tenant_names(visitor.context, (_tenant_of(item) for item in found.items))
    here, state = Here(visitor.context.zone), chosen.pop("state") or ""

    def cells(item: T) -> list[Cell]:
        whose = tenant_cell(_tenant_of(item), names)
        return [whose if cell is None else cell(item, here) for cell in declared.columns.values()]

    listing = Listing(
        list(declared.columns),
        [Row(cells(item), declared.acts(item)) for item in found.items],
        "None in this state." if state else declared.empty,
        found.next and with_query(declared.path, state=state, cursor=found.next, **chosen),
        filters(declared.path, declared.states, state, **chosen),
        declared.page_acts(found.items),
    )
    return show_list(request, visitor, declared.title, listing, said, declared.lead, beside)


def _tenant_of(item: Any) -> UUID | None:
    return None if item.tenant_id is None else UUID(str(item.tenant_id))


def _bill_acts(bill: BillItem) -> Sequence[Act]:
    at = f"/operator/bills/{bill.id}"
    if bill.state == "open" and bill.due_paise and bill.number:
        question = "Give up this debt? Its link is cancelled, and the tenant no longer owes it."
        return [Act("Write off", question, f"{at}/write-off", wants_reason=True, is_grave=True)]
    if bill.state != "held":
        return ()
    return [
        Act("Release", "Make this bill final? It gets its number and is collected.", f"{at}/release"),
        Act(
            "Void",
            "Void this bill for good? Its usage is never billed.",
            f"{at}/void",
            wants_reason=True,
            is_grave=True,
        ),
        Act(
            "Price again",
            "Void this bill and price its period again?",
            f"{at}/void",
            wants_reason=True,
            fields={"again": "yes"},
        ),
    ]


BILLS: OperatorList[BillItem] = OperatorList(
    "/operator/bills",
    "Bills",
    {
        "Number": lambda bill, _: Cell(bill.number or "draft", f"/operator/bills/{bill.id}"),
        "Tenant": None,
        "State": lambda bill, _: Cell(bill.state, is_state=True, note=bill.reason or ""),
        "Total": lambda bill, _: money(bill.total_paise),
        "For": lambda bill, _: Cell(words(bill.kind)),
        "Period": lambda bill, _: Cell(bill.period),
        "Issued": lambda bill, here: Cell(here.day(bill.issued_at)),
    },
    {
        "": "All",
        "held": "Held",
        "open": "Open",
        "paid": "Paid",
        "void": "Void",
        "written_off": "Written off",
        "issued": "Credit notes",
    },
    "No bills.",
    "A bill far above what the tenant usually has is held for review.",
    _bill_acts,
)


def _charge_acts(charge: ChargeItem) -> Sequence[Act]:
    action = f"/operator/charges/{charge.id}/retry"
    retry = Act("Retry", "Void this charge and create the next one?", action, wants_reason=True)
    return [retry] if charge.state == "failed" else ()


CHARGES: OperatorList[ChargeItem] = OperatorList(
    "/operator/charges",
    "Charges",
    {
        "Reference": lambda charge, _: Cell(charge.reference),
        "Tenant": None,
        "State": lambda charge, _: Cell(charge.state, is_state=True, note=charge.error or charge.wanted_void or ""),
        "Amount": lambda charge, _: money(charge.amount_paise),
        "By": lambda charge, _: Cell(words(charge.instrument)),
        "Razorpay": lambda charge, _: Cell(charge.razorpay_id or ""),
        "Created": lambda charge, here: Cell(here.at(charge.created_at)),
    },
    {"": "All", "failed": "Failed", "submitted": "Submitted", "paid": "Paid", "void": "Void"},
    "No charges yet.",
    acts=_charge_acts,
)


def _mandate_acts(mandate: TenantMandate) -> Sequence[Act]:
    if mandate.ended_at is not None or mandate.ends_soon:
        return ()
    question = "Cancel this mandate? Later bills are paid by link. A debit that has begun goes on."
    return [Act("Cancel", question, f"/operator/mandates/{mandate.tenant_id}/end", wants_reason=True, is_grave=True)]


def _mandate_note(mandate: TenantMandate) -> str:
    if mandate.ends_soon:
        return "is being cancelled"
    return mandate.end_reason or mandate.error or ("paused by the customer" if mandate.paused_at else "")


MANDATES: OperatorList[TenantMandate] = OperatorList(
    "/operator/mandates",
    "Mandates",
    {
        "Tenant": None,
        "State": lambda mandate, _: Cell(mandate.state, is_state=True, note=_mandate_note(mandate)),
        "By": lambda mandate, _: Cell(words(mandate.method)),
        "Limit per debit": lambda mandate, _: money(mandate.max_paise),
        "Token": lambda mandate, _: Cell(mandate.token_id or mandate.razorpay_id or ""),
        "Authorised": lambda mandate, here: Cell(here.at(mandate.authorised_at)),
        "Expires": lambda mandate, here: Cell(here.day(mandate.expires_at)),
    },
    {"": "All", "active": "Active", "submitted": "To authorise", "ended": "Ended"},
    "No mandates yet. Tenants authorise one on their account's page.",
    "Bills for usage are debited from an active mandate, up to its limit with GST; a larger one gets a payment link.",
    _mandate_acts,
)


def _refund_acts(refund: RefundItem) -> Sequence[Act]:
    at = f"/operator/refunds/{refund.id}"
    if refund.state == "failed":
        return [Act("Send again", "Send this refund again, as a new one?", f"{at}/retry", wants_reason=True)]
    if refund.state != "awaiting_operator":
        return ()
    return [
        Act("Approve", "Send this refund?", f"{at}/approve", wants_reason=True),
        Act("Deny", "Deny this refund? The money is kept.", f"{at}/deny", wants_reason=True, is_grave=True),
    ]


REFUNDS: OperatorList[RefundItem] = OperatorList(
    "/operator/refunds",
    "Refunds",
    {
        "Payment": lambda refund, _: Cell(refund.payment_id),
        "Tenant": None,
        "State": lambda refund, _: Cell(refund.state, is_state=True, note=refund.error or ""),
        "Amount": lambda refund, _: money(refund.amount_paise),
        "Cause": lambda refund, _: Cell(refund.cause),
        "Created": lambda refund, here: Cell(here.at(refund.created_at)),
    },
    {"": "All", "awaiting_operator": "To approve", "pending": "Pending", "failed": "Failed"},
    "No refunds yet.",
    "Refunds above the cap (BILLING_REFUND_CAP_PAISE) need your approval.",
    _refund_acts,
)


def _finding_acts(finding: FindingItem) -> Sequence[Act]:
    close = Act(
        "Close",
        "Close this finding as reviewed?",
        "/operator/findings/close",
        wants_reason=True,
        fields={"key": finding.key},
    )
    return [close] if finding.closed_at is None else ()


def _detail(detail: dict[str, Any]) -> str:
    return ", ".join(f"{words(name)} {value}" for name, value in detail.items() if not isinstance(value, dict | list))


FINDINGS: OperatorList[FindingItem] = OperatorList(
    "/operator/findings",
    "Findings",
    {
        "Finding": lambda finding, _: Cell(words(finding.kind), note=finding.key),
        "Tenant": None,
        "Details": lambda finding, _: Cell(_detail(finding.detail)),
        "Seen": lambda finding, here: Cell(here.at(finding.seen_at)),
    },
    {"": "Open", "closed": "Closed"},
    "No open findings.",
    "Facts about money that a person should review.",
    _finding_acts,
)


def _replay_parked(events: Sequence[EventItem]) -> Sequence[Act]:
    replay = Act("Replay all parked", "Process every parked event again?", "/operator/webhooks/replay")
    return [replay] if any(event.state == "parked" for event in events) else ()


EVENTS: OperatorList[EventItem] = OperatorList(
    "/operator/webhooks",
    "Webhooks",
    {
        "Event": lambda event, _: Cell(event.kind, f"/operator/webhooks/{event.id}", note=event.id),
        "State": lambda event, _: Cell(event.state, is_state=True, note=event.reason or ""),
        "Tenant": None,
        "Tries": lambda event, _: Cell(str(event.tries), is_number=True),
        "Received": lambda event, here: Cell(here.at(event.received_at)),
    },
    {"": "All", "parked": "Parked", "received": "Waiting", "applied": "Applied", "ignored": "Ignored"},
    "No events from Razorpay yet.",
    "Parked events failed too often and need review. A replay fetches the entities they refer to again.",
    page_acts=_replay_parked,
)
