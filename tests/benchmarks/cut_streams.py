"""The error of the output tokens of interrupted streams, measured on streams cut at random places.

    python -m tests.benchmarks.cut_streams [--streams 300] [--seed 1]

The simulator reports what it generated. Half of the streams is cut by the provider (socket, error event, clean end),
half by the client, while text in transit cannot be counted. `counted` is the stored count; `estimated` what
would be stored if the count failed: by the characters per token of 60 complete answers of the same mix, and by the
default of four. A real tokenizer differs from the simulator's.
"""

import argparse
import asyncio
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metering.pricing.tokens import estimate_output
from metering.settlement.chars_per_token import CharsPerToken
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests import servers
from tests.harness import Account, Api, Books, Simulator, chat, client, environment, running, scripted
from tests.journeys.callers import Caller

AT_ONCE = 12
WHOLE = 60
LONGEST_S = 300
MODEL = "claude-sonnet-4-6"
VOCABULARY = {
    "words": "the toll post counts every word that passes and keeps none of them",
    "code": "def(x): return [y_1, {'k': 0x1F}] if x != None else -> self.n += 42;\n",
    "Hindi": "यह नाका है और यहाँ हर शब्द गिना जाता है पर रखा नहीं जाता",
    "Japanese": "関所 は 通る 言葉を すべて 数える が ひとつも 手元に 残さない",
    "emoji": "🧾 👩\u200d💻 ok ✅ 🇮🇳 so ❤️ 🚦 go",
}
CUTS = ("client", "client", "client", "cut_after", "error_after", "end_after")


@dataclass(frozen=True)
class Plan:
    """One stream: its text as it arrives, who cuts it (or the simulator's script), and after how many pieces."""

    kind: str
    pieces: list[str]
    by: str
    after: int


@dataclass(frozen=True)
class Cut:
    """The results: tokens on both sides, and the characters relayed."""

    plan: Plan
    truth: int
    counted: int
    source: str
    chars: int


def main() -> None:
    """Runs the streams and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="naka-bench-")))
        database = stack.enter_context(Postgres(home / "postgres")).url
        valkey = stack.enter_context(Valkey(home / "valkey")).url
        simulator = Simulator()
        stack.callback(simulator.stop)
        database = servers.migrated(database)
        settings = environment(database, valkey, simulator.url, SPOOL_DIR=str(home / "spool"), CHAT_MAX_TOKENS="8000")
        api = stack.enter_context(running(Api(settings, home / "naka.log")))
        cuts, densities = asyncio.run(_run(api, database, simulator, options.streams, options.seed))
    _report(cuts, densities)


async def _run(
    api: Api, database: str, simulator: Simulator, streams: int, seed: int
) -> tuple[list[Cut], CharsPerToken]:
    rng = random.Random(seed)
    books = Books(database)
    turns = asyncio.Semaphore(AT_ONCE)
    try:
        async with asyncio.timeout(LONGEST_S):
            whole, cut = await books.account(), await books.account()
            await asyncio.gather(*(_whole(api, whole, turns, _plan(rng)) for _ in range(WHOLE)))
            plans = [_plan(rng) for _ in range(streams)]
            await asyncio.gather(*(_cut(api, cut, turns, str(number), plan) for number, plan in enumerate(plans)))
            rows = await books.settled(cut, streams, within_s=60)
            densities = CharsPerToken()
            for row in await books.settled(whole, WHOLE):
                densities.observe(row["model"], row["output_chars"], row["output_tokens"])
    finally:
        await books.close()
    entries = {entry["request_id"]: entry for entry in simulator.ledger()}
    return [_compare(row, entries[row["upstream_request_id"]], plans) for row in rows], densities


def _plan(rng: random.Random) -> Plan:
    kind = rng.choice(list(VOCABULARY))
    words = VOCABULARY[kind].split(" ")
    text = ("" if kind == "Japanese" else " ").join(rng.choice(words) for _ in range(rng.randint(5, 300)))
    pieces = []
    while text:
        size = rng.randint(1, 24)
        pieces.append(text[:size])
        text = text[size:]
    return Plan(kind, pieces, rng.choice(CUTS), rng.randrange(len(pieces) + 1))


async def _whole(api: Api, account: Account, turns: asyncio.Semaphore, plan: Plan) -> None:
    async with turns, client(api.url) as http:
        answer = await chat(http, account, scripted(pieces=plan.pieces))
        if not answer.done:
            raise SystemExit(f"a whole answer was not: {answer}")


async def _cut(api: Api, account: Account, turns: asyncio.Semaphore, ref: str, plan: Plan) -> None:
    async with turns:
        if plan.by != "client":
            async with client(api.url) as http:
                await chat(http, account, scripted(ref=ref, pieces=plan.pieces, **{plan.by: plan.after}))
            return
        script = {"pieces": plan.pieces, "piece_delay_ms": 3, "stall_after": len(plan.pieces)}
        caller = await Caller.ask(api, account, scripted(ref=ref, **script))
        await caller.hears("x-request-id")
        for piece in plan.pieces[: plan.after]:
            for _ in range(1 + piece.count("\n")):
                await caller.hears("data: ")
        await caller.leave()


def _compare(row: Any, entry: dict[str, Any], plans: Sequence[Plan]) -> Cut:
    plan = plans[int(entry["ref"])]
    return Cut(plan, entry["output_tokens"], row["output_tokens"], row["source"], row["output_chars"])


def _report(cuts: list[Cut], densities: CharsPerToken) -> None:
    poor = [cut for cut in cuts if cut.source != "counted"]
    print(f"{len(cuts)} streams cut, {len(poor)} of them not counted\n")
    print(
        "| output of cut streams, tokens | streams | generated | measured | off | per stream: p50 | p90 | p99 | most |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    by_client = [cut for cut in cuts if cut.plan.by == "client"]
    by_provider = [cut for cut in cuts if cut.plan.by != "client"]
    _line("counted, cut by the provider", by_provider, lambda cut: cut.counted)
    _line("counted, cut by the client", by_client, lambda cut: cut.counted)
    by_density: Callable[[Cut], int] = lambda cut: densities.estimate(MODEL, cut.chars)  # noqa: E731
    _line("estimated by density", cuts, by_density)
    for kind in VOCABULARY:
        _line(f"estimated by density: {kind}", [cut for cut in cuts if cut.plan.kind == kind], by_density)
    _line("estimated, nothing measured", cuts, lambda cut: estimate_output(cut.chars))


def _line(name: str, cuts: list[Cut], measured: Callable[[Cut], int]) -> None:
    truth, found = sum(cut.truth for cut in cuts), sum(map(measured, cuts))
    off = sorted(abs(measured(cut) - cut.truth) for cut in cuts)
    ranks = [off[min(len(off) - 1, int(len(off) * part))] for part in (0.5, 0.9, 0.99, 1)]
    share = f"{100 * (found - truth) / (truth or 1):+.2f} %"
    print(f"| {name} | {len(cuts)} | {truth} | {found} | {share} | " + " | ".join(map(str, ranks)) + " |")


if __name__ == "__main__":
    main()
