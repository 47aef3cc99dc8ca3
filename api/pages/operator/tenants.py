"""Tenants: all of them with this month's figures, one with everything about it, and a new one with its first key."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import Form, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from api.pages.once import leave, take
from api.pages.operator.frame import SIZE, Cell, Listing, Row, Said, money, show, with_query
from api.pages.route import page_router
from api.pages.site import Here, see_other, sentence, words
from api.pages.visitor import Operator, Visitor
from api.routes.parameters import Cursor, TenantId
from api.schemas.accounts.overview import TenantOverview
from api.schemas.accounts.tenants import NewTenantWithAdmin, PlanChoice, TenantItem
from api.services.accounts import overview
from api.services.accounts import tenants as tenant_services
from billing.gst.rupees import rupees
from billing.standing.words import say
from core.errors import Conflict, Invalid, NotFound
from core.figures import grouped, usd

router = page_router("/operator/tenants")
Text = Annotated[str, Form(max_length=200)]


@router.get("")
async def tenants(
    request: Request,
    visitor: Operator,
    search: Annotated[str, Query(max_length=100)] = "",
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Tenants, newest first, or those whose name or slug contains `search`."""
    left = take(request)
    context = await _list(visitor, search, cursor)
    status, typed = left.get("status", 200), left.get("fields", {})
    return show(request, "tenants", visitor, said, status, fault=left.get("fault", ""), typed=typed, **context)


async def _list(visitor: Visitor, search: str, cursor: UUID | None) -> dict[str, Any]:
    found = await overview.list_tenant_summaries(visitor.context, search=search, before=cursor, size=SIZE)
    rows = [
        Row(
            [
                Cell(each.tenant.name, f"/operator/tenants/{each.tenant.id}", note=each.tenant.slug),
                Cell(_plan(each.tenant)),
                Cell(each.subscription, is_state=True) if each.subscription else Cell("none"),
                Cell(grouped(each.month.requests), is_number=True),
                Cell(usd(each.month.cost_nano_usd), is_number=True),
                money(each.month.billed_paise),
            ]
        )
        for each in found.items
    ]
    listing = Listing(
        ["Tenant", "Own plan", "Subscription", "Requests", "Provider cost", "Billed"],
        rows,
        "No matching tenants." if search else "No tenants yet. Create the first one below.",
        with_query("/operator/tenants", search=search, cursor=found.next) if found.next else None,
    )
    default = visitor.context.settings.default_plan
    return {"listing": listing, "search": search, "plans": found.plans, "default_plan": default}


@router.post("")
async def new_tenant(
    request: Request,
    visitor: Operator,
    slug: Text = "",
    name: Text = "",
    plan: Text = "",
    user: Text = "",
) -> Response:
    """Creates a tenant, its first user and that user's key, which is shown once."""
    try:
        wanted = NewTenantWithAdmin(slug=slug.strip(), name=name.strip(), plan=plan or None, user=user.strip())
        made = await tenant_services.create_tenant_with_admin(visitor.context, wanted)
    except (ValidationError, Invalid, Conflict, NotFound) as error:
        typed = {"slug": slug, "name": name, "plan": plan, "user": user}
        return leave(request, "/operator/tenants", status=422, fault=_words(error), fields=typed)
    return leave(request, f"/operator/tenants/{made.tenant.id}/made", key=made.key, user=made.user)


@router.get("/{tenant_id}/made")
async def made_tenant(request: Request, tenant_id: TenantId, visitor: Operator) -> Response:
    """The first key of a tenant that was just created, once."""
    left = take(request)
    if "key" not in left:
        return see_other(f"/operator/tenants/{tenant_id}")
    made = await tenant_services.find_tenant(visitor.context, tenant_id)
    return show(request, "tenant_made", visitor, tenant=made, key=left["key"], user=left.get("user", ""))


@router.get("/{tenant_id}")
async def tenant(request: Request, tenant_id: TenantId, visitor: Operator, said: Said = "") -> Response:
    """Everything about a tenant."""
    found = await overview.describe_tenant(visitor.context, tenant_id)
    here = Here(visitor.context.zone)
    sections: dict[str, Any] = {
        name: Listing(columns, [Row(cells(row, here)) for row in getattr(found, name)], empty)
        for name, (columns, empty, cells) in _SECTIONS.items()
    }
    return show(
        request,
        "tenant",
        visitor,
        said,
        tenant=found.tenant,
        plan=_plan(found.tenant),
        users=found.users,
        plans=found.plans,
        figures=_figures(found),
        standing=say(found.standing, visitor.context.zone),
        **sections,
    )


@router.post("/{tenant_id}/plan")
async def put_on(tenant_id: TenantId, visitor: Operator, plan: Text = "") -> Response:
    """Changes the tenant's plan to the version on offer of another."""
    try:
        choice = PlanChoice(code=plan)
    except ValidationError as error:
        raise Invalid("choose a plan") from error
    await tenant_services.change_plan(visitor.context, tenant_id, choice)
    return see_other(f"/operator/tenants/{tenant_id}?said=moved")


def _figures(found: TenantOverview) -> list[tuple[str, str]]:
    figures = [
        (grouped(found.month.requests), "requests this month"),
        (usd(found.month.cost_nano_usd), "provider cost this month"),
        (rupees(found.month.billed_paise), "billed this month, before GST"),
    ]
    if found.margin_paise is not None:
        figures.append((rupees(found.margin_paise), "billed less provider cost"))
    return figures


_SECTIONS: dict[str, tuple[list[str], str, Callable[[Any, Here], list[Cell]]]] = {
    "subscriptions": (
        ["At Razorpay", "Plan", "State", "A month", "Paid until"],
        "No subscriptions.",
        lambda row, here: [
            Cell(row.razorpay_id or "not created yet"),
            Cell(f"{row.plan_code} {row.plan_version}"),
            Cell(row.status or row.state, is_state=True, note=row.error or ""),
            money(row.gross_paise),
            Cell(here.day(row.current_end_ms)),
        ],
    ),
    "periods": (
        ["Period", "Kind", "Plan", "State", "From", "Until"],
        "No billing periods yet.",
        lambda row, here: [
            Cell(row.period_id),
            Cell(words(row.kind)),
            Cell(f"{row.plan_code} {row.plan_version}"),
            Cell(row.state, is_state=True),
            Cell(here.day(row.starts_ms)),
            Cell(here.day(row.ends_ms)),
        ],
    ),
    "bills": (
        ["Number", "State", "Total", "For", "Issued"],
        "No bills yet.",
        lambda row, here: [
            Cell(row.number or "draft", f"/operator/bills/{row.id}"),
            Cell(row.state, is_state=True),
            money(row.total_paise),
            Cell(words(row.kind)),
            Cell(here.day(row.issued_ms)),
        ],
    ),
    "payments": (
        ["Payment", "State", "Amount", "By", "Captured"],
        "No payments yet.",
        lambda row, here: [
            Cell(row.razorpay_id),
            Cell(row.status, is_state=True),
            money(row.amount_paise),
            Cell(row.method or ""),
            Cell(here.at(row.captured_ms)),
        ],
    ),
    "findings": (
        ["Finding", "Seen"],
        "No open findings.",
        lambda row, here: [Cell(words(row.kind), "/operator/findings", note=row.key), Cell(here.at(row.seen_ms))],
    ),
    "audit": (
        ["When", "Actor", "Action", "Target"],
        "No changes.",
        lambda row, here: [Cell(here.at(row.at)), Cell(row.actor), Cell(words(row.action)), Cell(row.target)],
    ),
}
"""The lists of a tenant's page, by the field of `TenantOverview`: columns, text when empty, cells of a row."""


def _plan(tenant: TenantItem) -> str:
    return f"{tenant.plan.code} {tenant.plan.version}" if tenant.plan else "none"


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        if any(fault["loc"] == ("user",) for fault in error.errors()):
            return "The first user needs a name."
        return "A slug is a-z, 0-9 and hyphens, and a name is not empty."
    return sentence(str(error))
