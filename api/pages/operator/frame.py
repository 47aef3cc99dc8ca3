"""What the operator's pages have in common: their tabs, lists of one shape, and what was done, said in fixed words.

A list is rows of cells, told by data and not by markup, so that every list looks alike and every text is escaped. What
a row can be asked to do is a form behind a question; where the operation wants a reason, the form asks for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Form, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.pages.site import render
from api.pages.visitor import Visitor
from billing.gst.rupees import rupees
from core.tenancy.audit import PLATFORM
from core.tenancy.models import Tenant

SIZE = 50
TABS = [
    ("/operator", "Overview"),
    ("/operator/tenants", "Tenants"),
    ("/operator/bills", "Bills"),
    ("/operator/charges", "Charges"),
    ("/operator/refunds", "Refunds"),
    ("/operator/findings", "Findings"),
    ("/operator/webhooks", "Webhooks"),
    ("/operator/reconciliation", "Reconciliation"),
    ("/operator/audit", "Audit log"),
    ("/operator/plans", "Plans"),
    ("/operator/prices", "Prices"),
]
_SAID = {
    "replayed": "The event waits to be worked off once more. Look again in a moment.",
    "replayed-all": "All parked events wait to be worked off once more.",
    "retried": "The attempt was let go; the next one is made.",
    "released": "The bill is final: it has its number, and is collected.",
    "voided": "The bill was let go.",
    "approved": "The refund is on its way.",
    "denied": "The refund is not sent.",
    "closed": "The finding is closed.",
    "moved": "The tenant is on this plan from now on.",
    "run": "A worker makes this check next. Look again in a moment.",
}
_TONES = {
    "good": {"active", "applied", "paid", "processed", "credited", "closed"},
    "warn": {"open", "received", "pending", "submitted", "submitting", "intended", "created", "authenticated"},
    "bad": {"parked", "held", "failed", "awaiting_operator", "halted", "overdue"},
}

Said = Annotated[str, Query(max_length=20)]
Reason = Annotated[str, Form(max_length=500)]


@dataclass(frozen=True, slots=True)
class Cell:
    """A text of a row: a link with `href`, a tag with `is_state`, a figure with `is_number`; `note` stands below it."""

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
    """What a row can be asked to do, once a question was answered."""

    label: str
    question: str
    action: str
    wants_reason: bool = False
    is_grave: bool = False
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """Cells, the first of which heads it."""

    cells: Sequence[Cell]
    acts: Sequence[Act] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """A list, or a part of one: `older` is the query of the next part, `filters` are (href, label, is chosen)."""

    columns: Sequence[str]
    rows: Sequence[Row]
    empty: str
    older: str | None = None
    filters: Sequence[tuple[str, str, bool]] = ()
    acts: Sequence[Act] = ()


def show(
    request: Request, name: str, visitor: Visitor, said: str = "", status: int = 200, **context: Any
) -> HTMLResponse:
    """A page of the operator's."""
    given = {"fault": "", "said": _SAID.get(said, ""), "tabs": TABS, **context}
    return render(request, f"operator/{name}.html", visitor, status=status, **given)


def show_list(
    request: Request, visitor: Visitor, title: str, listing: Listing, said: str = "", lead: str = ""
) -> HTMLResponse:
    """A page that is a list."""
    return show(request, "list", visitor, said, title=title, lead=lead, listing=listing)


def filters(path: str, shown: dict[str, str], chosen: str, **kept: str) -> list[tuple[str, str, bool]]:
    """The states that a list can be narrowed to: code and label."""
    return [(with_query(path, state=code, **kept), label, code == chosen) for code, label in shown.items()]


def with_query(path: str, **given: object) -> str:
    """The path with what is given; what is empty is left out."""
    query = urlencode({name: str(value) for name, value in given.items() if value not in (None, "")})
    return f"{path}?{query}" if query else path


def money(amount_paise: int) -> Cell:
    """An amount."""
    return Cell(rupees(amount_paise), is_number=True)


async def tenant_cells(session: AsyncSession, ids: Iterable[UUID | None]) -> dict[UUID | None, Cell]:
    """The names of tenants, as links to their pages; whoever is none is a dash."""
    wanted = {each for each in ids if each not in (None, PLATFORM)}
    rows = (await session.execute(select(Tenant.id, Tenant.name).where(Tenant.id.in_(wanted)))).all()
    nobody = Cell("–")  # noqa: RUF001 - a dash, as in a table's empty cell
    cells: dict[UUID | None, Cell] = {None: nobody, PLATFORM: nobody, **dict.fromkeys(wanted, nobody)}
    return cells | {tenant_id: Cell(name, f"/operator/tenants/{tenant_id}") for tenant_id, name in rows}
