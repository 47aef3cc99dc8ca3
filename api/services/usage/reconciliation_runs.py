"""Stored runs of both reconciliations, and asking a worker for another one. Only a platform admin sees them."""

from sqlalchemy import select

from api.schemas.usage.reconciliation import StoredRun, StoredRuns
from api.services.context import ServiceContext
from billing.context import RAZORPAY
from billing.models import RazorpayReconciliation
from core.errors import Invalid
from core.queue import post_with
from core.tenancy.principal import Scope
from metering.models import ReconciliationRow

_RUNS = 20
_DUTIES = {"books": "reconcile", "razorpay": RAZORPAY}


async def list_runs(context: ServiceContext) -> StoredRuns:
    """The latest runs of both."""
    context.require(Scope.PLATFORM_ADMIN)
    of_usage = select(ReconciliationRow).order_by(ReconciliationRow.ran_at.desc()).limit(_RUNS)
    of_razorpay = select(RazorpayReconciliation).order_by(RazorpayReconciliation.ran_ms.desc()).limit(_RUNS)
    async with context.transaction() as session:
        usage = (await session.scalars(of_usage)).all()
        razorpay = (await session.scalars(of_razorpay)).all()
    return StoredRuns(
        [StoredRun(run.ran_at, run.report, (int(run.report.get("tenants", 0)), run.drifts)) for run in usage],
        [StoredRun(run.ran_ms, run.report, (run.healed, run.unexplained)) for run in razorpay],
    )


async def request_run(context: ServiceContext, which: str) -> None:
    """Has a worker run `books` or `razorpay` next: a run may take longer than a request should. Raises Invalid."""
    context.require(Scope.PLATFORM_ADMIN)
    if which not in _DUTIES:
        raise Invalid("there is no such check")
    async with context.transaction() as session:
        await post_with(session, _DUTIES[which])
