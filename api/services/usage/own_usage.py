"""A key's own user: its usage, and the status of its limits."""

from datetime import date

from api.schemas.usage.own_usage import LimitsAnswer, UsageAnswer
from api.services.context import ServiceContext
from api.services.usage.days import date_range
from core.resilience.deadline import within
from core.tenancy.principal import Principal, Scope
from metering.admission.limit_status import LimitStatusReader
from metering.reports.usage_report import UsageReport


async def own_usage(
    context: ServiceContext, principal: Principal, *, first: date | None, last: date | None
) -> UsageAnswer:
    """Usage of the key's user by day and model; without a range, this month. Raises Invalid."""
    context.require(Scope.USAGE_READ)
    first, last = date_range(context, first, last)
    report = UsageReport(first, last, ("day", "model"), tenant_id=principal.tenant_id, user_id=principal.user_id)
    async with context.own.transaction() as session:
        return UsageAnswer.of(await session.execute(report.query()))


async def own_limits(context: ServiceContext, principal: Principal, statuses: LimitStatusReader) -> LimitsAnswer:
    """Every limit of the key's user and of its tenant. Raises Unavailable."""
    context.require(Scope.USAGE_READ)
    async with within(context.settings.store_deadline_s):
        return LimitsAnswer.of(await statuses.of(principal.tenant_id, principal.user_id))
