"""Shared parts of the operator's pages: tabs, tables, and the notices after a change.

A table is data, not markup, so that all look alike and every text is escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Form, Query, Request
from fastapi.responses import HTMLResponse

from api.pages.site import render
from api.pages.visitor import Visitor
from billing.gst.rupees import rupees

SIZE = 50
TABS = [
    ("/operator", "Overview"),
    ("/operator/tenants", "Tenants"),
    ("/operator/bills", "Bills"),
    ("/operator/charges", "Charges"),
    ("/operator/refunds", "Refunds"),
    ("/operator/mandates", "Mandates"),
    ("/operator/coupons", "Coupons"),
    ("/operator/findings", "Findings"),
    ("/operator/webhooks", "Webhooks"),
    ("/operator/reconciliation", "Reconciliation"),
    ("/operator/audit", "Audit log"),
    ("/operator/plans", "Plans"),
    ("/operator/prices", "Prices"),
]
_SAID = {
    "replayed": "The event is queued to be processed again. Check again in a moment.",
    "replayed-all": "All parked events are queued to be processed again.",
    "sent": "The refund is sent again.",
    "written_off": "The debt is written off.",
    "retried": "The charge is void; the next one is created.",
    "released": "The bill is final: it has its number and is collected.",
    "voided": "The bill is void.",
    "approved": "The refund is being sent.",
    "denied": "The refund is denied.",
    "closed": "The finding is closed.",
    "credited": "The credit is in the wallet.",
    "refunded": "The vouchers are issued, and the money is being refunded.",
    "coupon": "The coupon can be used from now on.",
    "ended": "The coupon has ended. Credit that it gave stays.",
    "mandate_ended": "The mandate is being cancelled at Razorpay.",
    "moved": "The plan has been changed.",
    "offered": "The version is on offer.",
    "withdrawn": "The version is withdrawn. Tenants that have it keep it.",
    "run": "A worker runs this check next. Check again in a moment.",
}
_TONES = {
    "good": {"active", "applied", "paid", "processed", "credited", "closed", "offered"},
    "warn": {"open", "received", "pending", "submitted", "submitting", "intended", "created", "authenticated"},
    "bad": {"parked", "held", "failed", "awaiting_operator", "halted", "overdue"},
}

Said = Annotated[str, Query(max_length=20)]
Reason = Annotated[str, Form(max_length=500)]


@dataclass(frozen=True, slots=True)
class Cell:
    """A text in a row: a link (`href`), a tag (`is_state`), a number (`is_number`); `note` is a second line."""

    text: str
    href: str | None = None
    is_state: bool = False
    is_number: bool = False
    note: str = ""

    @property
    def tone(self) -> str:
        """The colour of a state."""
        return next((tone for tone, states in _TONES.items() if self.text in states), "")


@dataclass(frozen=True, slots=True)
class Act:
    """An action of a row, behind a question."""

    label: str
    question: str
    action: str
    wants_reason: bool = False
    is_grave: bool = False
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """Cells; the first is the row's header. `note` is a line below them, over the whole width."""

    cells: Sequence[Cell]
    acts: Sequence[Act] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a table. `older`: the URL of the next page; `filters`: (href, label, is chosen)."""

    columns: Sequence[str]
    rows: Sequence[Row]
    empty: str
    older: str | None = None
    filters: Sequence[tuple[str, str, bool]] = ()
    acts: Sequence[Act] = ()


def show(
    request: Request, name: str, visitor: Visitor, said: str = "", status: int = 200, **context: Any
) -> HTMLResponse:
    """Renders a page of the operator."""
    given = {"fault": "", "said": _SAID.get(said, ""), "tabs": TABS, **context}
    return render(request, f"operator/{name}.html", visitor, status=status, **given)


def show_list(
    request: Request,
    visitor: Visitor,
    title: str,
    listing: Listing,
    said: str = "",
    lead: str = "",
    beside: tuple[str, Listing] | None = None,
) -> HTMLResponse:
    """Renders a page with one table, and below it another one with its title."""
    return show(request, "list", visitor, said, title=title, lead=lead, listing=listing, beside=beside)


def filters(path: str, shown: Mapping[str, str], chosen: str, **kept: object) -> list[tuple[str, str, bool]]:
    """Links that filter a list by state. `shown`: label by state; `kept`: the other filters."""
    return [(with_query(path, state=code, **kept), label, code == chosen) for code, label in shown.items()]


def with_query(path: str, **given: object) -> str:
    """The path with a query; empty values are left out."""
    query = urlencode({name: str(value) for name, value in given.items() if value not in (None, "")})
    return f"{path}?{query}" if query else path


def money(amount_paise: int) -> Cell:
    """An amount."""
    return Cell(rupees(amount_paise), is_number=True)


def tenant_cell(tenant_id: UUID | None, names: Mapping[UUID, str]) -> Cell:
    """The name of a tenant as a link to its page; a dash for none."""
    if tenant_id is None or tenant_id not in names:
        return Cell("–")  # noqa: RUF001 - a dash, as in a table's empty cell
    return Cell(names[tenant_id], f"/operator/tenants/{tenant_id}")
