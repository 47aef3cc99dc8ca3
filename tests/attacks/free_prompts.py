"""Prompts that the provider processes and nobody is charged for: every way to end a request before its answer.

    python -m tests.attacks.free_prompts

A user with a limit of 3 requests a day sends 16 prompts of 40 kB and disconnects before the head, or has the provider
refuse them; so in each form (`/chat`, `/v1/messages` streamed and whole). Prints for each the requests sent upstream
(at most 3), those stored, and the input tokens processed and billed. Exits with 1 when a prompt was free or exceeded
the limit.
"""

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any, Literal

from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.complete_server import complete_server
from tests.harness import Api, Books, Simulator, scripted
from tests.journeys.callers import Caller
from tests.journeys.forms import FORMS, Form

PROMPTS = 16
PROMPT_CHARS = 40_000
LIMIT = 3
LIMITS = LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, LIMIT),))
LONGEST_S = 900
_LATE_S = 1.0
"""Time in which a request whose client left at once may still be admitted."""


@dataclass(frozen=True)
class Way:
    """The provider's behaviour, and when the client disconnects: at once, once the prompt is sent, or never."""

    name: str
    script: dict[str, Any]
    leaves: Literal["at once", "when sent", "never"] = "when sent"
    reset: bool = False


WAYS = (
    Way("hangs up at once", {"head_delay_ms": 500, "stall_after": 0}, leaves="at once"),
    Way("hangs up before the head", {"head_delay_ms": 1500, "stall_after": 0}),
    Way("resets before the head", {"head_delay_ms": 1500, "stall_after": 0}, reset=True),
    Way("hangs up, and no answer comes", {"head_delay_ms": 60_000}),
    Way("the provider answers 400", {"status": 400}, leaves="never"),
    Way("the provider answers 529", {"status": 529, "retry_after": 200}, leaves="never"),
    Way("the provider ends without a word", {"empty_body": True}, leaves="never"),
    Way("the provider is cut before its start", {"cut_first": True}, leaves="never"),
)


@dataclass(frozen=True)
class Found:
    """The results of one way."""

    upstream: int
    processed: int
    booked: int
    billed: int


async def attack(api: Api, books: Books, simulator: Simulator, way: Way, form: Form) -> Found:
    """Sends all prompts concurrently, then the remaining ones in turn."""
    account = await books.account(limits=LIMITS)
    refs = [f"{account.key_id.hex}-{number}" for number in range(PROMPTS)]

    async def ask(ref: str) -> None:
        caller = await Caller.ask(api, account, scripted("x" * PROMPT_CHARS, ref=ref, **way.script), form)
        answered = asyncio.create_task(caller.hears("\r\n\r\n"))
        while way.leaves != "at once" and not answered.done():
            sent = await asyncio.to_thread(simulator.ledger, ref)
            if sent and way.leaves == "when sent":
                break
            await asyncio.sleep(0.05)
        answered.cancel()
        await asyncio.gather(answered, return_exceptions=True)
        await caller.leave(reset=way.reset)

    await asyncio.gather(*map(ask, refs[: PROMPTS // 2]))
    for ref in refs[PROMPTS // 2 :]:
        await ask(ref)
    await asyncio.sleep(_LATE_S)
    rows = await books.settled(account, min(LIMIT, len(await books.requests(account))), within_s=20)
    entries = [entry for ref in refs for entry in await asyncio.to_thread(simulator.ledger, ref)]
    return Found(
        len(entries),
        sum(entry["input_tokens"] for entry in entries),
        sum(row["requests"] for row in rows),
        sum(row["input_tokens"] for row in rows),
    )


async def _run(api: Api, database: str, simulator: Simulator) -> bool:
    books = Books(database)
    try:
        print(f"{'form':10}{'way':34}{'upstream':>9}{'processed':>11}{'booked':>8}{'billed':>9}")
        is_free = False
        async with asyncio.timeout(LONGEST_S):
            for form, way in itertools.product(FORMS, WAYS):
                found = await attack(api, books, simulator, way, form)
                counts = f"{found.upstream:9}{found.processed:11}{found.booked:8}{found.billed:9}"
                print(f"{form.name:10}{way.name:34}{counts}", flush=True)
                is_free |= not found.upstream <= found.booked <= LIMIT or found.billed < found.processed
        return is_free
    finally:
        await books.close()


def main() -> None:
    """Runs every way and prints a table."""
    with complete_server(HANGUP_WAIT_S="2") as (api, database, simulator):
        is_free = asyncio.run(_run(api, database, simulator))
    raise SystemExit(1 if is_free else 0)


if __name__ == "__main__":
    main()
