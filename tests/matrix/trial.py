"""One cell, run: requests before, during and after the failure, the longest waits, and the accounts at the end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from metering.journal.spool import waiting
from tests.answers import Answer
from tests.harness import chat, client, scripted
from tests.matrix.cells import Cell
from tests.matrix.setup import Setup

_STREAMS, _PIECE_MS = 4, 50
_BACK_S = 40
_NOISE_S = 1.0
"""Time that a busy machine may add to any wait."""


class Unmet(AssertionError):
    """The cell did not behave as expected."""


@dataclass
class Waits:
    """The longest waits of a cell, by operation, in seconds."""

    longest_s: dict[str, float] = field(default_factory=dict)

    async def time(self, name: str, asked: Awaitable[Any]) -> Any:
        """Awaits the result and records its duration if it is the longest."""
        began_s = time.monotonic()
        answer = await asked
        self.longest_s[name] = max(self.longest_s.get(name, 0), time.monotonic() - began_s)
        return answer


async def tried(setup: Setup, cell: Cell, *, probes: int = 2, words: int = 80) -> Waits:
    """Returns the longest waits. Raises Unmet. `words`: of each stream, which must outlast the failure."""
    waits = Waits()
    async with client(setup.api.url) as http:
        await _serves(setup, http)
        streams = await _streams(setup, http, words)
        async with cell.harm(setup):
            _require(not any(stream.done() for stream in streams), "a stream ended before the harm")
            ended = asyncio.create_task(waits.time("streams", asyncio.gather(*streams)))
            for _ in range(probes):
                await _probe(setup, cell, http, waits)
            answers = await ended
            _require(all(answer.done for answer in answers), "a running stream did not end with done")
        began_s = time.monotonic()
        await _until(lambda: _is_ready(http), "not ready again")
        await _until(lambda: _is_served(setup, http), "not serving again")
        waits.longest_s["back"] = time.monotonic() - began_s
        await _until_books_agree(setup)
    return waits


async def _serves(setup: Setup, http: httpx2.AsyncClient) -> None:
    await _until(lambda: _is_ready(http), "not ready before the harm")
    await _until(lambda: _is_served(setup, http), "a request was not served before the harm")


async def _streams(setup: Setup, http: httpx2.AsyncClient, words: int) -> list[asyncio.Task[Answer]]:
    """Starts streams and waits until the provider has received all."""
    ref = setup.account.key_id.hex
    before = len(setup.simulator.ledger(ref))
    message = scripted(ref=ref, words=words, piece_delay_ms=_PIECE_MS, cache_read_input_tokens=5)
    asked = [asyncio.create_task(chat(http, setup.account, message)) for _ in range(_STREAMS)]

    async def heard() -> bool:
        return len(await asyncio.to_thread(setup.simulator.ledger, ref)) == before + _STREAMS

    await _until(heard, "the provider did not hear of the streams")
    return asked


async def _probe(setup: Setup, cell: Cell, http: httpx2.AsyncClient, waits: Waits) -> None:
    """Sends a chat, a readiness probe and a sign-in concurrently."""
    ref = setup.account.key_id.hex
    answer, ready, signed_in = await asyncio.gather(
        waits.time("chat", chat(http, setup.account, scripted(ref=ref))),
        waits.time("readyz", http.get("/readyz")),
        waits.time(
            "sign-in", http.post("/sign-in", data={"key": setup.account.key}, headers={"origin": setup.api.url})
        ),
    )
    if cell.refuses:
        refused = answer.status == 503 and answer.error is not None and answer.error["code"] == "unavailable"
        _require(refused and answer.retry_after_s >= 1, f"a request got {answer.status} {answer.error}")
    else:
        _require(answer.done, f"a request got {answer.status} {answer.error}")
    _require(signed_in.status_code in (303, 503), f"a sign-in got {signed_in.status_code}")
    if cell.reason is not None:
        said = ready.json()
        _require(
            (ready.status_code, said["status"], said["reason"]) == (503, "not_ready", cell.reason),
            f"/readyz said {ready.status_code} {said}",
        )
    for name in ("chat", "readyz", "sign-in"):
        waited_s = waits.longest_s[name]
        _require(waited_s < setup.deadline_s + _NOISE_S, f"{name} took {waited_s:.1f} s")


async def _is_ready(http: httpx2.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


async def _is_served(setup: Setup, http: httpx2.AsyncClient) -> bool:
    return (await chat(http, setup.account, scripted(ref=setup.account.key_id.hex))).done


async def _until_books_agree(setup: Setup) -> None:
    found: list[str | None] = [None]

    async def agree() -> bool:
        found[0] = await setup.mismatch()
        return found[0] is None and waiting(setup.spool) == (0, 0)

    try:
        await _until(agree, "the books do not agree")
    except Unmet as error:
        raise Unmet(f"{error}: {found[0]}, spool {waiting(setup.spool)}") from None


async def _until(true: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    deadline = time.monotonic() + _BACK_S
    while not await true():
        _require(time.monotonic() < deadline, otherwise)
        await asyncio.sleep(0.05)


def _require(true: object, otherwise: str) -> None:
    if not true:
        raise Unmet(otherwise)
