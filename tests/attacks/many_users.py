"""Shows that the Redis calls of a tenant with 500,000 users cost what they cost one with 5,000.

    python -m tests.attacks.many_users [--users 5000 500000]

Own Valkey. For each size: one hash per user of a tenant, 50 running requests, 10 of them past their deadline; then each
call that reads or replaces the tenant's hash, with the server's time for it (`INFO commandstats`), in which it serves
nobody else.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from core.ids import uuid7
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts, tenant_key
from metering.quota.counters import Hold, WindowState
from sandbox.valkey import Valkey

_CHUNK = 2_000
_RUNNING, _EXPIRED = 50, 10
_EPOCH = 7


def main() -> None:
    """Measures both sizes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[5_000, 500_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="naka-attack-") as home, Valkey(Path(home)) as valkey:
        print(f"{'call':30}" + "".join(f"{users:>18,} users" for users in options.users))
        columns = [asyncio.run(_measure(valkey.url, users)) for users in options.users]
        for name in columns[0]:
            print(f"{name:30}" + "".join(f"{column[name]:>17.2f} ms     " for column in columns))


async def _measure(url: str, users: int) -> dict[str, float]:
    lane = RedisPipeline(url, timeout_s=60)
    lane.start()
    await lane.command("FLUSHALL")
    quota, tenant_id, some_user = QuotaScripts(lane), uuid7(), uuid7()
    run_id = await lane.connect()
    await quota.build_tenant(tenant_id, _EPOCH, run_id, await _fields(quota, some_user))
    for start in range(0, users, _CHUNK):
        builds = [
            quota.build_user(tenant_id, uuid7(), _EPOCH, run_id, {"c": 0}) for _ in range(min(_CHUNK, users - start))
        ]
        assert all(await asyncio.gather(*builds))

    async def look() -> None:
        assert len(await quota.expired_holds(tenant_key(tenant_id), 1_000)) == _EXPIRED

    async def read() -> None:
        await quota.read(tenant_id, some_user, ["p:2026-11"])

    async def rebuild() -> None:
        assert await quota.build_tenant(tenant_id, _EPOCH + 1, run_id, {"c": 0})

    try:
        return {
            "look for expired holds": await _busy_ms(lane, look),
            "read the limits": await _busy_ms(lane, read),
            "rebuild the tenant": await _busy_ms(lane, rebuild),
        }
    finally:
        await lane.stop()


async def _fields(quota: QuotaScripts, user_id: UUID) -> dict[str, Any]:
    now_ms = await quota.now_ms()
    holds = {
        f"h:{uuid7().hex}": Hold(
            100, 200, 0, 300, now_ms + (-1 if number < _EXPIRED else 600_000), now_ms // 60_000,
            "2026-11-22", "2026-11", user_id,
        ).pack()
        for number in range(_RUNNING)
    }  # fmt: skip
    return {"p:2026-11": WindowState().pack(), "c": _RUNNING, "k": "p:2026-11", "x": now_ms - 1, **holds}


async def _busy_ms(lane: RedisPipeline, work: Callable[[], Awaitable[None]]) -> float:
    """Returns the server's own time for `work`; a script's time includes its commands."""
    await lane.command("CONFIG", "RESETSTAT")
    await work()
    text = (await lane.command("INFO", "commandstats")).decode()
    usec = {}
    for line in text.splitlines():
        if line.startswith("cmdstat_"):
            name, _, values = line.removeprefix("cmdstat_").partition(":")
            usec[name] = int(dict(pair.split("=") for pair in values.split(","))["usec"])
    counted = ("evalsha",) if "evalsha" in usec else ("hmget", "sismember", "scard")
    return sum(usec.get(name, 0) for name in counted) / 1000


if __name__ == "__main__":
    main()
