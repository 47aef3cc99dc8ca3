"""A noisy neighbour: one tenant saturates each shared pool of a `naka serve` while another tenant works.

    python -m tests.attacks.noisy_neighbour

Prints for each pool the latency of the other tenant's chats (each with an uncached key), sign-ins and reports: idle,
under attack, and the ratio of the p99; and the attack's own results. Without fair shares the other tenant would get
503s and timeouts, which are printed as failures. Takes less than three minutes.
"""

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests.attacks.two_tenants import Stage, two_tenants
from tests.harness import Account, Api, Simulator, chat, environment, running, scripted
from tests.programs import starter
from tests.simulated_razorpay import Razorpay

SETTINGS = {
    "UPSTREAM_MAX_CONNECTIONS": "200",
    "LIVE_VIEWS": "60",
    "DIRECTORY_TTL_S": "0",  # every chat has to look its key up
    "CLIENT_WRITE_TIMEOUT_S": "30",
    "ADMIN_REQUESTS_PER_MINUTE": "600",
}
QUIET_S, ATTACK_S, SETTLE_S = 5.0, 7.0, 1.0
PAUSE_S = 0.02
CALL_S = 20.0
LONGEST_S = 175
ELSEWHERE = "127.0.0.2"
"""The attacker's address, different from the other tenant's, because sign-ins are throttled per address."""
OPERATIONS = ("chat", "sign-in", "report")


@dataclass
class Timings:
    """Durations of successful operations in seconds, and the failures."""

    took: dict[str, list[float]]
    failed: Counter[str]


Attack = Callable[[Stage, AsyncExitStack, Counter[str]], Awaitable[None]]


async def work(stage: Stage, for_s: float) -> Timings:
    """Runs the modest tenant's operations, one of each at a time."""
    found = Timings({name: [] for name in OPERATIONS}, Counter())
    until = time.monotonic() + for_s
    doing = {"chat": _chat, "sign-in": _sign_in, "report": _report}
    await asyncio.gather(*(_again(found, name, doing[name], stage, until) for name in OPERATIONS))
    return found


async def _again(found: Timings, name: str, act: Callable[[Stage], Awaitable[str]], stage: Stage, until: float) -> None:
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            async with asyncio.timeout(CALL_S):
                said = await act(stage)
        except (httpx2.HTTPError, TimeoutError) as error:
            said = type(error).__name__
        if said:
            found.failed[f"{name}: {said}"] += 1
        else:
            found.took[name].append(time.monotonic() - began)
        await asyncio.sleep(PAUSE_S)


async def _chat(stage: Stage) -> str:
    answer = await chat(stage.http, stage.modest, scripted(pieces=["so ", "it ", "goes"]))
    return "" if answer.done else str(answer.error)


async def _sign_in(stage: Stage) -> str:
    headers = {"sec-fetch-site": "same-origin"}
    answer = await stage.http.post("/sign-in", data={"key": stage.modest_admin.key}, headers=headers)
    stage.http.cookies.clear()
    return "" if answer.status_code == 303 else str(answer.status_code)


async def _report(stage: Stage) -> str:
    answer = await stage.http.get("/v1/admin/reports/usage?format=csv", headers=stage.modest_admin.headers)
    return "" if answer.status_code == 200 else str(answer.status_code)


async def stalled_streams(stage: Stage, held: AsyncExitStack, seen: Counter[str]) -> None:
    """Opens 300 endless answers and does not read them."""
    body = json.dumps({"message": scripted(pieces=["x"] * 3, stall_after=1)}).encode()
    rest = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    await _open(stage, held, seen, [_head("POST /chat", stage.greedy, rest) + body] * 300)


async def unread_reports(stage: Stage, held: AsyncExitStack, seen: Counter[str]) -> None:
    """Requests 24 reports of some 20 MB and reads their first bytes."""
    head = _head("GET /v1/admin/reports/usage?group_by=user,day", stage.greedy_admin)
    await _open(stage, held, seen, [head] * 24)


async def live_views(stage: Stage, held: AsyncExitStack, seen: Counter[str]) -> None:
    """Opens 120 live views and does not read them."""
    await _open(stage, held, seen, [_head("GET /reports/live/events", stage.greedy_admin)] * 120)


async def sign_in_attempts(stage: Stage, held: AsyncExitStack, seen: Counter[str]) -> None:
    """Tries wrong keys from 16 callers, as fast as they are answered, at the form and the API."""
    wrong = stage.greedy.key[:-1] + ("a" if stage.greedy.key[-1] != "a" else "b")
    form, headers = {"key": wrong}, {"sec-fetch-site": "same-origin"}

    async def attempt(http: httpx2.AsyncClient, number: int) -> int:
        if number % 2:
            return (await http.post("/sign-in", data=form, headers=headers)).status_code
        # A good key of its own is the dearest attempt there is: it is looked up each time.
        return (await http.get("/v1/usage", headers=stage.greedy.headers)).status_code

    await _flood(stage, held, seen, attempt)


async def admin_calls(stage: Stage, held: AsyncExitStack, seen: Counter[str]) -> None:
    """Lists, reports and reads limits from 16 callers with one key, as fast as they are answered."""
    paths = (
        f"/v1/admin/tenants/{stage.greedy.tenant_id}",
        "/v1/admin/requests",
        "/v1/admin/reports/usage?group_by=user&top=10",
        "/account",
    )

    async def call(http: httpx2.AsyncClient, number: int) -> int:
        return (await http.get(paths[number % len(paths)], headers=stage.greedy_admin.headers)).status_code

    await _flood(stage, held, seen, call)


async def counts(stage: Stage, held: AsyncExitStack, seen: Counter[str]) -> None:
    """Causes 20 broken answers a second, each with a count that takes the provider 4 s."""
    message = scripted(pieces=["x "], cut_after=1, count_delay_ms=4000)

    async def break_off(http: httpx2.AsyncClient, _: int) -> int:
        await asyncio.sleep(0.4)
        return (await chat(http, stage.greedy, message)).status

    await _flood(stage, held, seen, break_off, callers=8)


async def tar_pit(stage: Stage, held: AsyncExitStack, seen: Counter[str]) -> None:
    """Sends test alerts to an address that never answers, and times the other tenant's alert."""
    await _listen_to(stage, stage.greedy_admin, await _receiver(held, answers=False))
    for _ in range(15):
        sent = await stage.http.post("/v1/billing/alerts/endpoint/test", headers=stage.greedy_admin.headers)
        seen[str(sent.status_code)] += 1
    await _listen_to(stage, stage.modest_admin, await _receiver(held, answers=True))
    seen["other's alert delivered after ms"] = round(1000 * await _delivery(stage))


def _head(request: str, account: Account, rest: str = "") -> bytes:
    return f"{request} HTTP/1.1\r\nhost: naka\r\nauthorization: Bearer {account.key}\r\n{rest}\r\n".encode()


ATTACKS: dict[str, Attack] = {
    "stalled streams": stalled_streams,
    "unread reports": unread_reports,
    "live views": live_views,
    "sign-in attempts": sign_in_attempts,
    "admin calls": admin_calls,
    "count-tokens": counts,
    "tar-pit alerts": tar_pit,
}


async def _open(stage: Stage, held: AsyncExitStack, seen: Counter[str], requests: Sequence[bytes]) -> None:
    """Opens a connection per request and reads its first line only."""

    async def one(request: bytes) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", stage.api.port, limit=1024, local_addr=(ELSEWHERE, 0)
        )
        held.callback(_hang_up, reader, writer)  # both are kept: one that is collected hangs up by itself
        writer.write(request)
        try:
            async with asyncio.timeout(CALL_S):
                seen[(await reader.readline()).decode().strip()] += 1
        except (TimeoutError, OSError) as error:
            seen[type(error).__name__] += 1

    for at in range(0, len(requests), 50):
        await asyncio.gather(*(one(request) for request in requests[at : at + 50]))


def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _flood(
    stage: Stage,
    held: AsyncExitStack,
    seen: Counter[str],
    act: Callable[[httpx2.AsyncClient, int], Awaitable[int]],
    *,
    callers: int = 16,
) -> None:
    transport = httpx2.AsyncHTTPTransport(local_address=ELSEWHERE)
    http = await held.enter_async_context(
        httpx2.AsyncClient(transport=transport, base_url=stage.api.url, timeout=CALL_S)
    )

    async def caller(number: int) -> None:
        while True:
            try:
                seen[str(await act(http, number))] += 1
            except httpx2.HTTPError as error:
                seen[type(error).__name__] += 1
            number += 1
            await asyncio.sleep(0.05)  # all of this shares a few cores: the attack is on the pools, not on the CPU

    tasks = [asyncio.create_task(caller(number)) for number in range(callers)]

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    held.push_async_callback(end)


async def _receiver(held: AsyncExitStack, *, answers: bool) -> str:
    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answers:
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    held.callback(server.close)
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


async def _listen_to(stage: Stage, admin: Account, url: str) -> None:
    answer = await stage.http.put("/v1/billing/alerts/endpoint", headers=admin.headers, json={"url": url})
    answer.raise_for_status()


async def _delivery(stage: Stage) -> float:
    """Returns the seconds until a test alert of the modest tenant was delivered."""
    began = time.monotonic()
    sent = await stage.http.post("/v1/billing/alerts/endpoint/test", headers=stage.modest_admin.headers)
    while time.monotonic() - began < CALL_S:
        rows = await stage.books.fetch("SELECT state FROM alerts WHERE id = $1::uuid", sent.json()["id"])
        if rows[0]["state"] == "delivered":
            break
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def main() -> None:
    """Starts everything, attacks, prints."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="naka-attack-")))
        home.chmod(0o755)
        database = stack.enter_context(Postgres(home / "postgres")).url
        valkey = stack.enter_context(Valkey(home / "valkey")).url
        migrate(database)
        simulator = Simulator()
        stack.callback(simulator.stop)
        razorpay = stack.enter_context(Razorpay())
        settings = environment(database, valkey, simulator.url, **{**SETTINGS, **razorpay.env})
        stack.enter_context(starter(home))("api.cli", "worker", **settings)
        api = stack.enter_context(running(Api(settings, home / "naka.log")))
        asyncio.run(_run(api, database, simulator))


async def _run(api: Api, database: str, simulator: Simulator) -> None:
    async with asyncio.timeout(LONGEST_S), two_tenants(api, database, simulator) as stage:
        await work(stage, 2)  # the first of everything is slow
        print(f"{'ms':18} {'operation':9} {'quiet p50':>10} {'p99':>8} {'attack p50':>11} {'p99':>8} {'ratio':>6}")
        for name, attack in ATTACKS.items():
            quiet = await work(stage, QUIET_S)
            seen: Counter[str] = Counter()
            async with AsyncExitStack() as held:
                await attack(stage, held, seen)
                await asyncio.sleep(SETTLE_S)
                under = await work(stage, ATTACK_S)
            _print(name, quiet, under, seen)


def _print(name: str, quiet: Timings, under: Timings, seen: Counter[str]) -> None:
    for operation in OPERATIONS:
        before, after = sorted(quiet.took[operation]), sorted(under.took[operation])
        if not before or not after:
            print(f"{name:18} {operation:9} nothing succeeded")
            continue
        figures: list[Any] = [_at(before, 0.5), _at(before, 0.99), _at(after, 0.5), _at(after, 0.99)]
        shown = "{:>10.1f} {:>8.1f} {:>11.1f} {:>8.1f}".format(*figures)
        print(f"{name:18} {operation:9} {shown} {figures[3] / figures[1]:>6.2f}  of {len(after)}")
    print(f"{'':18} the attack: {dict(seen)}")
    if quiet.failed or under.failed:
        print(f"{'':18} FAILURES of the other tenant: quiet {dict(quiet.failed)}, attacked {dict(under.failed)}")


def _at(ordered: Sequence[float], part: float) -> float:
    """Returns the quantile in milliseconds."""
    return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


if __name__ == "__main__":
    main()
