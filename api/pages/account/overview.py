"""The account at a glance: usage of the plan, limits, upcoming charges. Postgres down: 503 in words."""

from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.pages.account import wording
from api.pages.account.frame import show, state_of
from api.pages.route import page_router
from api.pages.visitor import AccountAdmin
from api.services.billing.account import find_overview
from billing.invoicing.preview import UpcomingCharges
from metering.admission.limit_status import LimitStatus
from metering.quota.limits import LimitScope

router = page_router("/account")


@dataclass(frozen=True, slots=True)
class Allowance:
    """A meter of the plan: used, included, and the overage with its price so far.

    What earlier segments of the period used of the allowance is part of both.
    """

    meter: str
    used: int
    included: int
    excess: int
    whole_paise: int

    @property
    def percent(self) -> int:
        """The used part of the allowance, rounded down; above 100 with overage."""
        return self.used * 100 // self.included if self.included else 0


@router.get("")
async def overview(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """The overview."""
    found = await find_overview(visitor.account_context, runtime.metering.entitlements)
    facts, coming, now = found.facts, found.upcoming, found.allowed
    status = await runtime.metering.limit_status.of(visitor.principal.tenant_id, visitor.principal.user_id)
    allowances = [] if coming is None else _allowances(coming)
    return show(
        request,
        "overview",
        visitor,
        state=state_of(visitor),
        is_refused=now.refusal is not None,
        changes=facts.live is not None and facts.waiting is not None,
        plan=found.period_plan or facts.plan,
        coming=coming,
        renewal=found.renewal,
        allowances=allowances,
        limits=[one for one in status.limits if _is_shown(one, allowances)],
        defaults=[limit for limit in now.entitlement.limits if limit.scope is LimitScope.USER],
        each_at_once=now.entitlement.user_concurrency,
        all_at_once=now.entitlement.tenant_concurrency,
        models=now.entitlement.models,
        features=sorted(now.entitlement.features),
        alerts=[(alert.at, wording.alert(alert.type, alert.data)) for alert in found.alerts],
    )


def _allowances(coming: UpcomingCharges) -> list[Allowance]:
    lines: list[dict[str, Any]] = [line for line in coming.lines if line["kind"] == "meter"]
    found = []
    for line in lines:
        included = line.get("of_allowance", line["allowance"])
        used = line["quantity"] + included - line["allowance"]
        found.append(Allowance(line["meter"], used, included, line["excess"], line["whole_paise"]))
    return found


def _is_shown(one: LimitStatus, allowances: list[Allowance]) -> bool:
    """Whether a limit is the tenant's. A plan that blocks has its allowances as limits too, which are shown once."""
    limit = one.limit
    known = {(allowance.meter, allowance.included) for allowance in allowances}
    return limit.scope is LimitScope.TENANT and (limit.window != "period" or (limit.meter, limit.limit) not in known)
