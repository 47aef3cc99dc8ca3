"""The operator's overview: what needs a person first, then this month's money."""

from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.pages.operator.frame import Cell, Listing, Row, Said, money, show
from api.pages.route import page_router
from api.pages.site import Here
from api.pages.visitor import Operator
from api.services.billing.operator_overview import OperatorOverview, find_overview
from billing.gst.rupees import rupees
from billing.standing.status import Cause
from core.figures import grouped, usd
from metering.reports.gauges import Gauges

router = page_router("/operator")
_LATE_S = 300
_OLD_S = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Light:
    """One status figure: `tone` is empty, `warn` or `bad`."""

    figure: str
    words: str
    href: str | None = None
    tone: str = ""


@router.get("")
async def overview(request: Request, runtime: RuntimeDep, visitor: Operator, said: Said = "") -> Response:
    """The status and this month's money."""
    found = await find_overview(visitor.context, runtime.pool)
    lights = sorted([*_system(found), *_to_review(found)], key=lambda light: ("bad", "warn", "").index(light.tone))
    arrears = _arrears(found, Here(visitor.context.zone))
    return show(
        request, "overview", visitor, said, lights=lights, money=_money(found), arrears=arrears, month=found.month
    )


def _system(found: OperatorOverview) -> list[Light]:
    gauges, inbox = found.gauges, found.inbox
    checked = gauges.age_s is not None and gauges.age_s < _OLD_S
    return [
        Light(
            grouped(inbox.parked), "webhooks parked", "/operator/webhooks?state=parked", "bad" if inbox.parked else ""
        ),
        Light(
            grouped(inbox.received),
            f"webhooks waiting, the oldest for {int(inbox.lag_s)} s",
            "/operator/webhooks?state=received",
            "warn" if inbox.lag_s > _LATE_S else "",
        ),
        Light(
            "–" if gauges.drifts is None else grouped(gauges.drifts),  # noqa: RUF001 - never checked yet
            _checked(gauges, recently=checked),
            "/operator/reconciliation",
            "bad" if gauges.drifts else "" if checked else "warn",
        ),
        Light(
            grouped(gauges.overdue_requests),
            "requests past their deadline and not settled",
            None,
            "warn" if gauges.overdue_requests else "",
        ),
        Light(grouped(gauges.open_requests), "requests running"),
        Light(grouped(gauges.living_processes), "processes serving", None, "" if gauges.living_processes else "bad"),
    ]


def _checked(gauges: Gauges, *, recently: bool) -> str:
    if gauges.age_s is None:
        return "no reconciliation yet: a worker runs it each night"
    return "drifts in the last reconciliation" + ("" if recently else ", which is two days old")


def _to_review(found: OperatorOverview) -> list[Light]:
    return [
        Light(grouped(count), words, href, "warn" if count else "")
        for count, words, href in (
            (found.held_bills, "bills awaiting review", "/operator/bills?state=held"),
            (found.refunds_to_approve, "refunds to approve", "/operator/refunds?state=awaiting_operator"),
            (found.open_findings, "findings about money", "/operator/findings"),
        )
    ]


def _arrears(found: OperatorOverview, here: Here) -> Listing:
    """The tenants that are late, and what they can still do."""
    rows = [
        Row(
            [
                Cell(one.tenant.name, f"/operator/tenants/{one.tenant.id}", note=one.tenant.slug),
                Cell(one.said.tag, is_state=True),
                money(one.status.overdue_paise),
                Cell(here.day(one.status.since_ms)),
                Cell("usage" if one.status.cause is Cause.BILL else "subscription fee"),
                Cell(one.said.limits or "Not limited."),
            ]
        )
        for one in found.arrears
    ]
    return Listing(["Tenant", "State", "Overdue", "Since", "For", "Access"], rows, "No tenant is overdue.")


def _money(found: OperatorOverview) -> list[tuple[str, str]]:
    margin = [] if found.margin_paise is None else [(rupees(found.margin_paise), "billed less provider cost")]
    return [
        (rupees(found.billed_paise), "billed this month, before GST"),
        (rupees(found.collected_paise), "collected this month, with GST"),
        (rupees(found.due_paise), "due, with GST"),
        (usd(found.cost_nano_usd), "provider cost this month"),
        *margin,
        (grouped(found.requests), "requests this month"),
        (grouped(found.refused), "requests refused this month"),
    ]
