"""What the tests of schedules project and wait for: terms and periods of a tenant, and a clock that a test moves."""

import asyncio
from pathlib import Path

import asyncpg

from core import clock
from core.clock import now_ms
from metering.admission.entitlements import project_entitlement
from metering.journal.partitions import ensure_partitions
from metering.quota.limits import Limit, LimitSet, Meter, PlanLimits
from metering.quota.schedule import Period, Refusal, Schedule, Segment
from metering.quota.windows import WindowKind
from tests.harness import Account, Books
from tests.servers import asyncpg_dsn

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
UNPAID = Refusal("bill_overdue", "a bill is overdue")


class TestClock:
    """A file that this process follows."""

    __test__ = False

    def __init__(self, file: Path, database_url: str) -> None:
        self.file = file
        self._dsn = asyncpg_dsn(database_url)

    async def move(self, by_ms: int) -> None:
        """So much later, whatever runs; the months of then are made."""
        ahead_ms = clock.offset_ms() + by_ms
        self.file.write_text(str(ahead_ms))
        async with asyncio.timeout(5):
            while clock.offset_ms() != ahead_ms:  # noqa: ASYNC110 - the file is looked at now and then
                await asyncio.sleep(0.005)
        connection = await asyncpg.connect(self._dsn)
        await ensure_partitions(connection)
        await connection.close()

    async def move_to(self, at_ms: int) -> None:
        """To a moment."""
        await self.move(at_ms - now_ms())


def requests(limit: int) -> PlanLimits:
    """So many requests in a period."""
    return PlanLimits(tenant=LimitSet((Limit(Meter.REQUESTS, WindowKind.PERIOD, limit),)))


async def project(
    books: Books, account: Account, schedule: Schedule | None = None, *, limits: PlanLimits | None = None
) -> bool:
    """Billing's word; nobody is told but by the epoch."""
    async with books.database.session() as session:
        return await project_entitlement(
            session,
            account.tenant_id,
            plan_version="team@1",
            limits=limits or PlanLimits(),
            schedule=schedule or Schedule(),
        )


def blocked(from_ms: int = 0) -> Schedule:
    """Nothing is granted from a moment on."""
    return Schedule((Segment(from_ms, "team@1", PlanLimits(), UNPAID),))


def cycle(starts_ms: int, ends_ms: int, name: str = "") -> Period:
    """A period named as billing does."""
    return Period(name or f"{clock.to_datetime(starts_ms):%Y-%m-%d}-7HbN", starts_ms, ends_ms)
