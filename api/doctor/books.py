"""Checks of the database's contents: partitions, prices, keys, running processes, reconciliation, inbox."""

from api.doctor.findings import Checkup
from core.clock import now_ms
from metering.journal.partitions import months_around
from metering.reports.gauges import read_gauges

_LATE_S = 2 * 3600
_BOOKS_S = 2 * 86_400
_WITHOUT_PLAN = """
SELECT count(*) FROM tenants AS t
 WHERE t.plan_code IS NULL
   AND NOT EXISTS (SELECT FROM subscriptions AS s
                    WHERE s.tenant_id = t.id AND s.authorised_ms IS NOT NULL
                      AND s.status NOT IN ('cancelled', 'completed', 'expired'))
"""


async def months(checkup: Checkup) -> None:
    """This month and the next have their partitions."""
    wanted = [name for name, *_ in months_around(now_ms())][1:3]
    missing = [name for name in wanted if await checkup.postgres.fetchval("SELECT to_regclass($1)", name) is None]
    checkup.judge(
        "months",
        good=not missing,
        says="this month and the next have their partitions",
        otherwise=f"missing: {', '.join(missing)}",
        mend="run `naka worker`, which creates them in advance",
    )


async def prices(checkup: Checkup) -> None:
    """The default model has a price."""
    model = checkup.settings.chat_model
    known = await checkup.postgres.fetchval("SELECT EXISTS (SELECT FROM prices WHERE model = $1)", model)
    checkup.judge(
        "prices",
        good=bool(known),
        says=f"the price list has {model}",
        otherwise=f"the price list lacks CHAT_MODEL {model}: every request is refused",
        mend="naka price add, or set another CHAT_MODEL",
    )


async def tenant_plans(checkup: Checkup) -> None:
    """Every tenant has a plan of its own or a subscription, and the default plan is on offer."""
    code = checkup.settings.default_plan
    states = {row["state"] for row in await checkup.postgres.fetch("SELECT state FROM plans WHERE code = $1", code)}
    if code and "offered" not in states:
        says = f"has no version on offer ({', '.join(sorted(states))})" if states else "does not exist"
        checkup.fault(
            "plans",
            f"DEFAULT_PLAN {code} {says}: no tenant can be created without naming a plan",
            f"naka plan offer {code} VERSION" if states else f"naka plan publish {code} --help",
        )
        return
    without = int(await checkup.postgres.fetchval(_WITHOUT_PLAN))
    if without:
        says = f"{without} tenants have neither a plan nor a subscription: nothing they use is billed"
        checkup.warn("plans", says, "naka tenant list, then naka tenant plan TENANT PLAN; DEFAULT_PLAN is for new ones")
        return
    checkup.judge(
        "plans",
        good=bool(code),
        says="every tenant has a plan, and new ones get DEFAULT_PLAN",
        otherwise="DEFAULT_PLAN is not set: nothing is billed to a tenant that is made without a plan",
        mend="set DEFAULT_PLAN to the code of a plan",
        is_fault=False,
    )


async def operator_key(checkup: Checkup) -> None:
    """An operator's key exists."""
    query = "SELECT EXISTS (SELECT FROM api_keys WHERE 'platform:admin' = ANY (scopes) AND revoked_at IS NULL)"
    checkup.judge(
        "operator's key",
        good=bool(await checkup.postgres.fetchval(query)),
        says="exists",
        otherwise="no active key has platform:admin",
        mend="naka key create USER_ID operator --scope platform:admin",
        is_fault=False,
    )


async def processes(checkup: Checkup) -> None:
    """API processes and a worker run, and the last reconciliation found no drift."""
    gauges = await read_gauges(checkup.postgres, dead_after_s=checkup.settings.dead_after_s)
    checkup.judge(
        "API",
        good=gauges.living_processes > 0,
        says=f"{gauges.living_processes} API processes run",
        otherwise="no API process runs",
        mend="run `naka serve`",
        is_fault=False,
    )
    late = gauges.worker_overdue_s
    checkup.judge(
        "worker",
        good=late is not None and late < _LATE_S,
        says="runs its hourly jobs",
        otherwise="none ever ran" if late is None else f"its hourly jobs are {int(late // 3600)} h late",
        mend="run `naka worker`",
    )
    if gauges.age_s is None or gauges.age_s > _BOOKS_S:
        says = "not checked " + ("yet" if gauges.age_s is None else "for two days")
        checkup.warn("books", says, "run `naka reconcile`; a worker does it each night")
    else:
        checkup.judge(
            "books",
            good=not gauges.drifts,
            says="the last check found no drift",
            otherwise=f"the last check found {gauges.drifts} drifts",
            mend="run `naka reconcile`, which suggests repairs",
        )


async def inbox(checkup: Checkup) -> None:
    """No webhook event is parked."""
    query = "SELECT count(*) FROM webhook_events WHERE state = 'parked'"
    parked = int(await checkup.postgres.fetchval(query))
    checkup.judge(
        "webhooks",
        good=not parked,
        says="none parked",
        otherwise=f"{parked} parked: they need a decision",
        mend="naka webhook list --state parked, then replay",
        is_fault=False,
    )


async def supplier(checkup: Checkup) -> None:
    """The supplier's profile is set: bills need it."""
    checkup.judge(
        "operator's profile",
        good=bool(await checkup.postgres.fetchval("SELECT EXISTS (SELECT FROM operator_profile)")),
        says="set",
        otherwise="not set: no tenant can subscribe, and no bill can be issued",
        mend="naka operator set --help",
        is_fault=bool(checkup.settings.razorpay_key_id),
    )
