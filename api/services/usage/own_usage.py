"""A key's own user: its usage, one request of it, and the status of its limits."""

from datetime import date
from uuid import UUID

from api.schemas.usage.own_usage import LimitsAnswer, OwnRequest, UsageAnswer
from api.services.context import ServiceContext
from api.services.usage.days import date_range
from core.errors import NotFound
from core.resilience.deadline import within
from core.tenancy.principal import Principal, Scope
from metering.admission.budget_status import BudgetStatusReader
from metering.admission.limit_status import LimitStatusReader
from metering.reports import requests
from metering.reports.usage_report import UsageReport
from metering.tags.tags import Tags, merged


async def own_usage(
    context: ServiceContext, principal: Principal, *, first: date | None, last: date | None
) -> UsageAnswer:
    """Usage of the key's user by day and model; without a range, this month. Raises Invalid."""
    context.require(Scope.USAGE_READ)
    first, last = date_range(context, first, last)
    report = UsageReport(first, last, ("day", "model"), tenant_id=principal.tenant_id, user_id=principal.user_id)
    async with context.own.transaction() as session:
        return UsageAnswer.of(await session.execute(report.query()), with_cost=context.sees_cost)


async def own_request(context: ServiceContext, principal: Principal, request_id: UUID) -> OwnRequest:
    """One request of the key's user. Raises NotFound, for that of another user in the words of an unknown one."""
    context.require(Scope.USAGE_READ)
    async with context.own.transaction() as session:
        found = await requests.find_request(session, request_id, tenant_id=principal.tenant_id)
    if found.row["user_id"] != principal.user_id:
        raise NotFound("no such request")
    return OwnRequest.of(found).shown(with_cost=context.sees_cost)


async def own_limits(
    context: ServiceContext,
    principal: Principal,
    tags: Tags,
    *,
    statuses: LimitStatusReader,
    budgets: BudgetStatusReader,
) -> LimitsAnswer:
    """Every limit of the key's user, of its tenant, of its token, and of requests with these tags.

    Raises InvalidTags, Unavailable.
    """
    context.require(Scope.USAGE_READ)
    async with within(context.settings.store_deadline_s):
        status = await statuses.of(principal.tenant_id, principal.user_id)
        of_tags = await budgets.of(principal, merged(principal.tags, tags))
        return LimitsAnswer.of(status, of_tags, with_cost=context.sees_cost)
