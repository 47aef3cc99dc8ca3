"""Reconciliation: compares rollups, meters and Redis with the request rows, and repairs what is asked for.

The ledger is compared with bills, payments, refunds and disputes; a difference there is reported, never repaired.

A difference from Anthropic's usage report is reported, but is no drift. Postgres down: `Unavailable`. Redis down or not
set: its check is reported as not done.
"""

from uuid import UUID

from api.schemas.usage.reconciliation import ReconcileRequest, ReconcileResult
from api.services.context import ServiceContext
from api.services.usage.anthropic_admin import AnthropicAdmin, ReportUnavailable
from api.services.usage.stores import open_stores
from billing.ledger.balances import differences
from core.clock import now_ms, to_datetime
from core.postgres.database import Connections
from core.tenancy.accounts import find_tenant
from core.tenancy.principal import Scope as KeyScope
from metering.journal.spool import waiting
from metering.reconciliation.drifts import METERS, REDIS, ROLLUP
from metering.reconciliation.provider_usage import compare_with_provider
from metering.reconciliation.reconcile import Progress, Scope, reconcile
from metering.reconciliation.repair import drop_counters, repair_meters, repair_rollup

_REDIS_TIMEOUT_S = 10


async def reconcile_usage(
    context: ServiceContext, wanted: ReconcileRequest, progress: Progress | None = None
) -> ReconcileResult:
    """Checks, repairs what is asked for, and checks those tenants again. Raises NotFound, Unavailable."""
    context.require(KeyScope.PLATFORM_ADMIN)
    tenants = None
    if wanted.tenant is not None:
        async with context.transaction() as session:
            tenants = ((await find_tenant(session, wanted.tenant)).id,)
    async with open_stores(context.settings, redis_timeout_s=_REDIS_TIMEOUT_S) as (connections, quota):
        result = ReconcileResult(await reconcile(connections, quota, Scope(tenants, wanted.since), progress=progress))
        result.spooled, result.poisoned = waiting(context.settings.spool_dir)
        touched = await _repair(context, connections, result, wanted)
        if touched:
            again = Scope(tuple(sorted(touched)), wanted.since)
            result.left = await reconcile(connections, quota, again, progress=progress)
        async with context.transaction() as session:
            result.ledger = await differences(session, None if tenants is None else tenants[0])
        if context.settings.anthropic_admin_key.get_secret_value() and tenants is None:
            await _compare_with_provider(context, connections, result)
    return result


async def _repair(
    context: ServiceContext, connections: Connections, result: ReconcileResult, wanted: ReconcileRequest
) -> set[UUID]:
    """Returns the tenants to check again."""
    found, touched, actor = result.found, set[UUID](), context.actor

    def add(check: str, tenant_id: UUID, repaired: int) -> None:
        result.repaired[check] = result.repaired.get(check, 0) + repaired
        touched.add(tenant_id)

    if wanted.repair:
        for tenant_id, month in found.places(ROLLUP):
            if month is not None:
                add(ROLLUP, tenant_id, await repair_rollup(connections, actor, tenant_id, month))
    if wanted.repair_meters:
        for tenant_id, month in found.places(METERS):
            if month is not None:
                add(METERS, tenant_id, await repair_meters(connections, actor, tenant_id, month, wanted.reason))
    if wanted.repair:
        for tenant_id, _ in found.places(REDIS):
            drifts = [drift for drift in found.checks[REDIS].drifts if drift.tenant_id == tenant_id]
            await drop_counters(connections, actor, tenant_id, drifts)
            add(REDIS, tenant_id, 1)
    return touched


async def _compare_with_provider(context: ServiceContext, connections: Connections, result: ReconcileResult) -> None:
    """Compares day by day, from the first checked month until now, over all tenants."""
    settings, first = context.settings, result.found.since.first
    days = (to_datetime(now_ms()).date() - first).days + 1
    provider = AnthropicAdmin(
        settings.anthropic_base_url,
        settings.anthropic_admin_key,
        proxy=settings.proxies.of(settings.anthropic_base_url),
    )
    try:
        result.exposure = await compare_with_provider(connections, await provider.usage(first, days), first, days)
    except ReportUnavailable as error:
        result.no_exposure = str(error)
    finally:
        await provider.close()
