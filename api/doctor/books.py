"""What is in the database: months, prices, who may, who serves, and whether the books were proved."""

from api.doctor.findings import Checkup
from core.clock import now_ms
from metering.journal.partitions import months_around
from metering.reports.gauges import read_gauges

_LATE_S = 2 * 3600
_BOOKS_S = 2 * 86_400


async def months(patient: Checkup) -> None:
    """Whether requests have a table to go to."""
    wanted = [name for name, *_ in months_around(now_ms())][1:3]
    missing = [name for name in wanted if await patient.postgres.fetchval("SELECT to_regclass($1)", name) is None]
    patient.judge(
        "months",
        good=not missing,
        says="this month and the next have their tables",
        otherwise=f"missing: {', '.join(missing)}",
        mend="run `naka worker`, which makes them ahead of time",
    )


async def prices(patient: Checkup) -> None:
    """Whether the default model has a price."""
    model = patient.settings.chat_model
    known = await patient.postgres.fetchval("SELECT EXISTS (SELECT FROM prices WHERE model = $1)", model)
    patient.judge(
        "prices",
        good=bool(known),
        says=f"the list knows {model}",
        otherwise=f"the list does not know CHAT_MODEL {model}: every request is refused",
        mend="naka price add, or set another CHAT_MODEL",
    )


async def operator_key(patient: Checkup) -> None:
    """Whether somebody may operate."""
    query = "SELECT EXISTS (SELECT FROM api_keys WHERE 'platform:admin' = ANY (scopes) AND revoked_at IS NULL)"
    patient.judge(
        "operator's key",
        good=bool(await patient.postgres.fetchval(query)),
        says="there is one",
        otherwise="nobody has a key with platform:admin",
        mend="naka key create USER_ID operator --scope platform:admin",
        is_fault=False,
    )


async def processes(patient: Checkup) -> None:
    """Whether somebody serves, works and checks the books."""
    gauges = await read_gauges(patient.postgres, dead_after_s=patient.settings.dead_after_s)
    patient.judge(
        "API",
        good=gauges.living_processes > 0,
        says=f"{gauges.living_processes} processes serve",
        otherwise="no process serves",
        mend="run `naka serve`",
        is_fault=False,
    )
    late = gauges.worker_overdue_s
    patient.judge(
        "worker",
        good=late is not None and late < _LATE_S,
        says="it does its hourly work",
        otherwise="none ever ran" if late is None else f"its hourly work waits for {int(late // 3600)} h",
        mend="run `naka worker`",
    )
    if gauges.age_s is None or gauges.age_s > _BOOKS_S:
        says = "they were not checked " + ("yet" if gauges.age_s is None else "for two days")
        patient.warn("books", says, "run `naka reconcile`; a worker does it each night")
    else:
        patient.judge(
            "books",
            good=not gauges.drifts,
            says="the last check found no drift",
            otherwise=f"the last check found {gauges.drifts} drifts",
            mend="run `naka reconcile`, and see what it says of mending",
        )


async def inbox(patient: Checkup) -> None:
    """Whether an event waits for a person."""
    query = "SELECT count(*) FROM webhook_events WHERE state = 'parked'"
    parked = int(await patient.postgres.fetchval(query))
    patient.judge(
        "webhooks",
        good=not parked,
        says="none is parked",
        otherwise=f"{parked} are parked: a person has to look",
        mend="naka webhook list --state parked, then replay",
        is_fault=False,
    )


async def supplier(patient: Checkup) -> None:
    """Whether bills can be made out."""
    patient.judge(
        "operator's profile",
        good=bool(await patient.postgres.fetchval("SELECT EXISTS (SELECT FROM operator_profile)")),
        says="it stands on bills",
        otherwise="it is not set: nobody can subscribe, no bill can be made out",
        mend="naka operator set --help",
        is_fault=bool(patient.settings.razorpay_key_id),
    )
