"""Tenants: all of them with this month's figures, one with everything about it, and a new one with its first key."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Form, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError
from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep
from api.pages.operator.frame import SIZE, Cell, Listing, Row, Said, money, show, with_query
from api.pages.route import page_router
from api.pages.site import Here, number, see_other, usd, words
from api.pages.visitor import Operator
from api.routes.parameters import Cursor, TenantId
from api.runtime import Runtime
from api.schemas.accounts.tenants import NewTenantWithAdmin, PlanChoice
from api.services.accounts import tenants as tenant_services
from billing.catalogue.plans import list_plans
from billing.gst.rupees import rupees
from billing.invoicing.bill_list import list_bills
from billing.invoicing.report_prices import billed, cost_in_paise
from billing.models import BillingFinding, BillingPeriod, Payment, Subscription
from core.clock import now_ms
from core.errors import Conflict, Invalid, NotFound
from core.tenancy.accounts import find_tenant
from core.tenancy.lists import list_audit
from core.tenancy.models import Tenant, User
from metering.reports.usage_report import UsageReport

router = page_router("/operator/tenants")
_LATEST = 10
Text = Annotated[str, Form(max_length=200)]


@dataclass(frozen=True, slots=True)
class Month:
    """What tenants used this month, and what was billed to them."""

    usage: dict[UUID, Any]
    billed: dict[UUID, int]

    def cells(self, tenant_id: UUID) -> list[Cell]:
        """Requests, provider's cost, billed."""
        row = self.usage.get(tenant_id)
        return [
            Cell(number(int(row["requests"]) if row else 0), is_number=True),
            Cell(usd(int(row["cost_nano_usd"]) if row else 0), is_number=True),
            money(self.billed.get(tenant_id, 0)),
        ]


@router.get("")
async def tenants(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    search: Annotated[str, Query(max_length=100)] = "",
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """All of them, newest first, or those whose name or slug has `search` in it."""
    async with runtime.database.session() as session:
        context = await _list(session, runtime, search, cursor)
    return show(request, "tenants", visitor, said, **context, typed={})


async def _list(session: AsyncSession, runtime: Runtime, search: str, cursor: UUID | None) -> dict[str, Any]:
    query = select(Tenant).order_by(Tenant.id.desc()).limit(SIZE + 1)
    if search:
        query = query.where(or_(*(column.icontains(search, autoescape=True) for column in (Tenant.name, Tenant.slug))))
    rows = (await session.scalars(query if cursor is None else query.where(Tenant.id < cursor))).all()
    month = await _month(session, runtime)
    status = await _subscriptions(session, [tenant.id for tenant in rows])
    older = with_query("/operator/tenants", search=search, cursor=rows[SIZE - 1].id) if len(rows) > SIZE else None
    listing = Listing(
        ["Tenant", "Own plan", "Subscription", "Requests", "Provider cost", "Billed"],
        [
            Row(
                [
                    Cell(tenant.name, f"/operator/tenants/{tenant.id}", note=tenant.slug),
                    Cell(_plan(tenant)),
                    Cell(status[tenant.id], is_state=True) if tenant.id in status else Cell("none"),
                    *month.cells(tenant.id),
                ]
            )
            for tenant in rows[:SIZE]
        ],
        "No tenant is called so." if search else "No tenants yet. Make the first one below.",
        older,
    )
    plans = sorted({plan.code for plan in await list_plans(session)})
    return {"listing": listing, "search": search, "plans": plans}


async def _month(session: AsyncSession, runtime: Runtime, tenant_id: UUID | None = None) -> Month:
    today = runtime.calendar.date_of(now_ms())
    report = UsageReport(today.replace(day=1), today, ["tenant"], tenant_id=tenant_id)
    usage = {row["tenant_id"]: row for row in (await session.execute(report.query())).mappings()}
    return Month(usage, await billed(session, runtime.calendar.zone, today.replace(day=1), today, tenant_id))


async def _subscriptions(session: AsyncSession, ids: list[UUID]) -> dict[UUID, str]:
    """Razorpay's word for the newest subscription of each."""
    query = (
        select(Subscription.tenant_id, Subscription.status)
        .where(Subscription.tenant_id.in_(ids), Subscription.status.is_not(None))
        .order_by(Subscription.tenant_id, Subscription.id.desc())
        .ext(distinct_on(Subscription.tenant_id))
    )
    return {tenant_id: str(status) for tenant_id, status in (await session.execute(query)).all()}


@router.post("")
async def new_tenant(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    slug: Text = "",
    name: Text = "",
    plan: Text = "",
    user: Text = "",
) -> Response:
    """Makes a tenant, its first user and that one's key, which is shown once."""
    try:
        wanted = NewTenantWithAdmin(slug=slug.strip(), name=name.strip(), plan=plan or None, user=user.strip())
        made = await tenant_services.create_tenant_with_admin(visitor.context, wanted)
    except (ValidationError, Invalid, Conflict, NotFound) as error:
        fault = _words(error)
        async with runtime.database.session() as session:
            context = await _list(session, runtime, "", None)
        typed = {"slug": slug, "name": name, "plan": plan, "user": user}
        return show(request, "tenants", visitor, status=422, fault=fault, typed=typed, **context)
    return show(request, "tenant_made", visitor, tenant=made.tenant, key=made.key, user=made.user)


@router.get("/{tenant_id}")
async def tenant(
    request: Request, tenant_id: TenantId, runtime: RuntimeDep, visitor: Operator, said: Said = ""
) -> Response:
    """Everything about one."""
    here = Here(runtime.calendar.zone)
    async with runtime.database.session() as session:
        found = await find_tenant(session, tenant_id)
        users = int(await session.scalar(select(func.count(User.id)).where(User.tenant_id == tenant_id)) or 0)
        context: dict[str, Any] = {
            "figures": await _figures(session, runtime, tenant_id),
            "subscriptions": await _subscription_list(session, tenant_id, here),
            "periods": await _periods(session, tenant_id, here),
            "bills": await _bills(session, tenant_id, here),
            "payments": await _payments(session, tenant_id, here),
            "findings": await _findings(session, tenant_id, here),
            "audit": await _audit(session, tenant_id, here),
            "plans": sorted({plan.code for plan in await list_plans(session)}),
        }
    return show(request, "tenant", visitor, said, tenant=found, plan=_plan(found), users=users, **context)


@router.post("/{tenant_id}/plan")
async def put_on(tenant_id: TenantId, visitor: Operator, plan: Text = "") -> Response:
    """Puts it on a plan's newest version."""
    try:
        choice = PlanChoice(code=plan)
    except ValidationError as error:
        raise Invalid("choose a plan") from error
    await tenant_services.change_plan(visitor.context, tenant_id, choice)
    return see_other(f"/operator/tenants/{tenant_id}?said=moved")


async def _figures(session: AsyncSession, runtime: Runtime, tenant_id: UUID) -> list[tuple[str, str]]:
    month = await _month(session, runtime, tenant_id)
    row, paise = month.usage.get(tenant_id), month.billed.get(tenant_id, 0)
    cost = int(row["cost_nano_usd"]) if row else 0
    figures = [
        (number(int(row["requests"]) if row else 0), "requests this month"),
        (usd(cost), "provider cost this month"),
        (rupees(paise), "billed this month, before GST"),
    ]
    rate = runtime.settings.paise_per_usd
    if rate is not None:
        figures.append((rupees(paise - cost_in_paise(cost, rate)), "billed less provider cost"))
    return figures


async def _subscription_list(session: AsyncSession, tenant_id: UUID, here: Here) -> Listing:
    query = select(Subscription).where(Subscription.tenant_id == tenant_id).order_by(Subscription.id.desc())
    rows = [
        Row(
            [
                Cell(row.razorpay_id or "not made yet"),
                Cell(f"{row.plan_code} {row.plan_version}"),
                Cell(row.status or row.state, is_state=True, note=row.error or ""),
                money(row.gross_paise),
                Cell(here.day(row.current_end_ms)),
            ]
        )
        for row in (await session.scalars(query.limit(_LATEST))).all()
    ]
    return Listing(["At Razorpay", "Plan", "State", "A month", "Paid until"], rows, "It has not subscribed.")


async def _periods(session: AsyncSession, tenant_id: UUID, here: Here) -> Listing:
    query = select(BillingPeriod).where(BillingPeriod.tenant_id == tenant_id).order_by(BillingPeriod.starts_ms.desc())
    rows = [
        Row(
            [
                Cell(row.period_id),
                Cell(words(row.kind)),
                Cell(f"{row.plan_code} {row.plan_version}"),
                Cell(row.state, is_state=True),
                Cell(here.day(row.starts_ms)),
                Cell(here.day(row.ends_ms)),
            ]
        )
        for row in (await session.scalars(query.limit(_LATEST))).all()
    ]
    return Listing(["Period", "Kind", "Plan", "State", "From", "Until"], rows, "None is known to billing yet.")


async def _bills(session: AsyncSession, tenant_id: UUID, here: Here) -> Listing:
    rows = [
        Row(
            [
                Cell(bill.number or "draft", f"/operator/bills/{bill.id}"),
                Cell(bill.state, is_state=True),
                money(bill.total_paise),
                Cell(words(bill.kind)),
                Cell(here.day(bill.issued_ms)),
            ]
        )
        for bill in await list_bills(session, tenant_id=tenant_id, state=None, final=False, before=None, limit=_LATEST)
    ]
    return Listing(["Number", "State", "Total", "For", "Issued"], rows, "None yet.")


async def _payments(session: AsyncSession, tenant_id: UUID, here: Here) -> Listing:
    query = select(Payment).where(Payment.tenant_id == tenant_id).order_by(Payment.captured_ms.desc().nulls_last())
    rows = [
        Row(
            [
                Cell(row.razorpay_id),
                Cell(row.status, is_state=True),
                money(row.amount_paise),
                Cell(row.method or ""),
                Cell(here.at(row.captured_ms)),
            ]
        )
        for row in (await session.scalars(query.limit(_LATEST))).all()
    ]
    return Listing(["Payment", "State", "Amount", "By", "Captured"], rows, "None yet.")


async def _findings(session: AsyncSession, tenant_id: UUID, here: Here) -> Listing:
    query = select(BillingFinding).where(BillingFinding.tenant_id == tenant_id, BillingFinding.closed_ms.is_(None))
    rows = [
        Row([Cell(words(row.kind), "/operator/findings", note=row.key), Cell(here.at(row.seen_ms))])
        for row in (await session.scalars(query.order_by(BillingFinding.seen_ms.desc()).limit(_LATEST))).all()
    ]
    return Listing(["Finding", "Seen"], rows, "Nothing to look at.")


async def _audit(session: AsyncSession, tenant_id: UUID, here: Here) -> Listing:
    rows = [
        Row([Cell(here.at(entry.at)), Cell(entry.actor), Cell(words(entry.action)), Cell(entry.target)])
        for entry in (await list_audit(session, tenant_id=tenant_id, before=None, limit=_LATEST)).rows
    ]
    return Listing(["When", "Who", "Did", "To"], rows, "Nothing was changed.")


def _plan(tenant: Tenant) -> str:
    return f"{tenant.plan_code} {tenant.plan_version}" if tenant.plan_code else "none"


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        if any(fault["loc"] == ("user",) for fault in error.errors()):
            return "The first user needs a name."
        return "A slug is a-z, 0-9 and hyphens, and a name is not empty."
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
