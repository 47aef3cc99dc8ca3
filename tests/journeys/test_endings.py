"""Every ending of an answer, in every form: the client's view, the stored usage and its source.

One case per row of docs/endings.md, compared with the simulator's ledger: `final` rows agree in all five classes,
`counted` ones in the tokens of the relayed text, `estimated` ones within their bounds.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.harness import (
    LEDGER_FIELDS,
    TOKEN_FIELDS,
    Account,
    Api,
    Books,
    Simulator,
    client,
    running,
    scripted,
)
from tests.journeys.callers import Caller, eventually, limit_status_when_free, sent, served
from tests.journeys.forms import PLAIN, SOCKET, UI, Form, all_forms

LIMITS = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 1_000_000),), concurrency=1)
CACHED: dict[str, Any] = {"cache_read_input_tokens": 3, "cache_creation_5m": 5, "cache_creation_1h": 7}
RATES = (3_000, 15_000, 300, 3_750, 6_000)
PIECES = ["The toll", " of 12 🧾 is", " नाका,\n", "  said twice."]
RARE_MODELS = {
    "chat": "claude-mythos-5",
    "streamed": "claude-opus-5",
    "whole": "claude-opus-4-8",
    "plain": "claude-fable-5",
    "json": "claude-opus-4-7",
    "ui": "claude-opus-4-6",
    "socket": "claude-sonnet-5",
}
"""Nobody else here is answered by them, so each density is of one test."""
ENDS = {
    "chat": "event: done\ndata: \n\n\r\n0\r\n\r\n",
    "plain": "\r\n0\r\n\r\n",
    "ui": '"}\n\ndata: [DONE]\n\n\r\n0\r\n\r\n',
}
"""What a complete answer ends with on the wire."""
FAILING_COUNT = '[[sim {"count_status": 500}]]'
SLOW_COUNT = '[[sim {"count_delay_ms": 3000}]]'
WAITING_SETTLEMENT = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'naka-settle' AND wait_event_type = 'Lock'"
)
IMPATIENT = {"UPSTREAM_READ_TIMEOUT_S": "1.3", "REQUEST_DEADLINE_S": "3", "HANGUP_WAIT_S": "0.5"}


@dataclass(frozen=True)
class Ending:
    """One row: the provider's behaviour, the client's view, and the stored usage."""

    script: dict[str, Any]
    code: str | None = None
    """The code of the error, in the response or the event; none for a complete answer, or a client that left."""
    fault_status: int = 502
    """The status of that error; in an event, the one that it would have been."""
    outcome: str = "upstream_broke"
    source: str = "counted"
    billed: bool | None = True
    """Whether the served usage is billed. False: nothing is. None: the prompt, as counted."""
    started: bool = True
    """Whether the provider's answer began and was received."""
    leaves_after: int | None = None
    """The client disconnects after so many pieces; -1: before the head."""
    impatient: bool = False
    """Whether it needs an API with short timeouts."""


WHOLE = Ending({}, outcome="completed", source="final")
BROKEN = Ending({}, code="upstream_broken")
NO_START = Ending({}, code="upstream_broken", outcome="upstream_refused", source="final", started=False, billed=False)
UNANSWERED = replace(NO_START, source="estimated", billed=None)
GONE = Ending({}, outcome="client_gone")
OVERDUE = Ending({}, code="upstream_timeout", fault_status=504, impatient=True)

ENDINGS = {
    "complete": WHOLE,
    "complete, with thinking": replace(WHOLE, script={"thinking": 41}),
    "refusal with output": replace(WHOLE, script={"refusal": "partial"}),
    "refusal without output": replace(WHOLE, script={"refusal": "empty"}, outcome="refused", billed=False),
    "refusal without output, no message_stop": replace(
        BROKEN, script={"refusal": "empty", "end_before_stop": True}, outcome="refused", source="final", billed=False
    ),
    "max_tokens": replace(WHOLE, script={"pieces": None, "words": 3000}),
    "client gone before the head": replace(GONE, script={"head_delay_ms": 700, "stall_after": 0}, leaves_after=-1),
    "client gone before the head, and no answer within the bound": replace(
        GONE,
        script={"head_delay_ms": 60_000},
        source="estimated",
        started=False,
        billed=None,
        leaves_after=-1,
        impatient=True,
    ),
    "client gone before the head, and an error instead of an answer": replace(
        GONE,
        script={"head_delay_ms": 700, "status": 529},
        source="final",
        started=False,
        billed=False,
        leaves_after=-1,
    ),
    "client gone before the first piece": replace(GONE, script={"stall_after": 0}, leaves_after=0),
    "client gone in the middle": replace(GONE, script={"stall_after": 2}, leaves_after=2),
    "client gone after the last piece": replace(GONE, script={"stall_after": 4}, leaves_after=4),
    "error status": replace(
        NO_START, script={"status": 529, "retry_after": 200}, code="upstream_overloaded", fault_status=503
    ),
    "error event first": replace(NO_START, script={"error_first": True}, code="upstream_overloaded", fault_status=503),
    "empty body": replace(UNANSWERED, script={"empty_body": True}),
    "cut before message_start": replace(UNANSWERED, script={"cut_first": True}),
    "error event in the middle": replace(
        BROKEN, script={"error_after": 2}, code="upstream_overloaded", fault_status=503
    ),
    "end without message_stop": replace(BROKEN, script={"end_after": 3}),
    "end between message_delta and message_stop": replace(BROKEN, script={"end_before_stop": True}, source="final"),
    "cut after message_start": replace(BROKEN, script={"cut_after": 0}),
    "cut in the middle": replace(BROKEN, script={"cut_after": 3, "thinking": 41}),
    "unreadable": replace(BROKEN, script={"bad_json_after": 1}),
    "silence in the middle": replace(OVERDUE, script={"stall_after": 2}),
    "deadline before the head": replace(
        OVERDUE,
        script={"head_delay_ms": 60_000},
        outcome="deadline",
        source="estimated",
        started=False,
        billed=None,
    ),
    "deadline in the middle": replace(
        OVERDUE,
        script={"pieces": ["word "] * 9, "piece_delay_ms": 800},  # so that none is under way when the time is over
        outcome="deadline",
    ),
}


@pytest.fixture(scope="module")
def impatient_api(story_environment: dict[str, str], run_folder: Path, worker: str) -> Iterator[Api]:
    with running(Api(story_environment | IMPATIENT, run_folder / f"impatient-{worker}.log")) as made:
        yield made


@all_forms
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_an_ending(
    api: Api, request: pytest.FixtureRequest, books: Books, simulator: Simulator, ending: Ending, form: Form
) -> None:
    used = request.getfixturevalue("impatient_api") if ending.impatient else api
    account = await books.account(limits=LIMITS)
    message = scripted(**{"ref": account.key_id.hex, "pieces": PIECES, **CACHED, **ending.script})

    if ending.leaves_after is None:
        heard = await told(used, account, message, ending, form)
    else:
        heard = await hear_and_leave(used, account, message, simulator, ending.leaves_after, form)

    entry = await served(simulator, account.key_id.hex, ended=True)
    row = await assert_booked(used, books, account, entry, ending)
    assert heard == (entry["text_sent"] if form.streams or ending.code is None else 0)
    if ending.started:
        assert row["output_chars"] == entry["text_sent"] + 4 * ending.script.get("thinking", 0)


async def told(api: Api, account: Account, message: str, ending: Ending, form: Form) -> int:
    """Sends a message, checks the ending, and returns the number of characters received before."""
    async with client(api.url) as http:
        answer = await form.ask(http, account, message)
    if ending.code is None:
        assert (answer.status, answer.done, answer.error) == (200, True, None)
    else:
        form.assert_told(answer, ending.fault_status, ending.code, started=ending.started)
    return len(answer.text)


async def hear_and_leave(
    api: Api, account: Account, message: str, simulator: Simulator, pieces: int, form: Form
) -> int:
    """Sends a message, reads so many pieces, disconnects, and returns their characters."""
    caller = await Caller.ask(api, account, message, form)
    if pieces >= 0 and form.streams:
        if form.has_head:
            await caller.hears("x-request-id")
        elif not pieces:
            await sent(simulator, account.key_id.hex, 0)
        for piece in PIECES[:pieces]:
            await caller.hears(form.frame_end(piece))
    elif pieces >= 0:
        await sent(simulator, account.key_id.hex, pieces)
    await served(simulator, account.key_id.hex, ended=False)
    await caller.leave()
    return len("".join(PIECES[: max(0, pieces)]))


async def assert_booked(api: Api, books: Books, account: Account, entry: dict[str, Any], ending: Ending) -> Any:
    """Asserts that the row agrees with the ledger, and rollup, meters and windows with the row."""
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"], row["requests"]) == (ending.outcome, ending.source, 1)
    counts = [row[name] for name in TOKEN_FIELDS]
    assert counts == billed(entry, ending.billed)
    assert row["cost_nano_usd"] == sum(count * rate for count, rate in zip(counts, RATES, strict=True))
    sums = await books.sums("usage_requests", account.tenant_id)
    assert sums == await books.sums("usage_daily", account.tenant_id)
    assert sums == await books.sums("usage_meters", account.tenant_id)
    async with client(api.url) as http:
        assert (await limit_status_when_free(http, account))["used"] == sum(counts)
    return row


def billed(entry: dict[str, Any], is_billed: bool | None) -> list[int]:  # noqa: FBT001 - three cases of one column
    """Returns the five token classes served by the ledger; for an unanswered prompt, its input."""
    if is_billed is None:
        return [entry["input_tokens"], 0, 0, 0, 0]
    return [entry[name] for name in LEDGER_FIELDS] if is_billed else [0] * 5


@pytest.mark.slow
@all_forms
async def test_our_own_stop(start_api: Callable[..., Api], books: Books, simulator: Simulator, form: Form) -> None:
    api = start_api(SHUTDOWN_DRAIN_S="0", SHUTDOWN_GRACE_S="0")
    waiting, hearing = await books.account(limits=LIMITS), await books.account(limits=LIMITS)
    script = {"ref": waiting.key_id.hex, "head_delay_ms": 60_000, **CACHED}
    early = await Caller.ask(api, waiting, scripted(**script), form)
    script = {"ref": hearing.key_id.hex, "pieces": PIECES, "stall_after": 2, **CACHED}
    late = await Caller.ask(api, hearing, scripted(**script), form)
    if form.streams:
        await late.hears(form.frame_end(PIECES[1]))
    else:
        await sent(simulator, hearing.key_id.hex, 2)
    await served(simulator, waiting.key_id.hex, ended=False)

    api.process.send_signal(signal.SIGTERM)

    said = '"code":"shutting_down"' if form.is_chat else '"type":"api_error","message":"this server is restarting'
    answer = (await early.rest()).lower()
    assert answer.startswith(form.refusal_head)
    assert ('"retry_after_s":5' if form is SOCKET else "retry-after: 5\r\n") in answer
    assert said in answer
    answer = (await late.rest()).lower()
    if form is PLAIN:
        assert answer == "\r\n", "the end of a chunk, and no last one"
    elif form is SOCKET:
        assert '{"error":{' in answer
    elif form is UI:
        assert '{"type":"error","errortext":' in answer
        assert answer.endswith("\r\n0\r\n\r\n")
        said = said.replace('"', '\\"')
    elif form.streams:
        assert "event: error\ndata: {" in answer
        assert answer.endswith("\r\n0\r\n\r\n")
    else:
        assert answer.startswith("http/1.1 503 ")
        assert "retry-after: 5\r\n" in answer
    assert form is PLAIN or said in answer
    ends = ("event: done", "message_stop", "end_turn", '"finish"', '"done"')
    assert not [end for end in ends if end in answer]
    assert await asyncio.to_thread(api.process.wait, 10) == 0
    for account, is_billed, source in ((waiting, None, "estimated"), (hearing, True, "counted")):
        entry = await served(simulator, account.key_id.hex, ended=True)
        (row,) = await books.settled(account, 1)
        assert (row["outcome"], row["source"], row["requests"]) == ("shutdown", source, 1)
        assert [row[name] for name in TOKEN_FIELDS] == billed(entry, is_billed)


@pytest.mark.slow
@all_forms
async def test_our_own_stop_while_a_complete_answer_is_booked(
    start_api: Callable[..., Api], books: Books, simulator: Simulator, form: Form
) -> None:
    api = start_api(SHUTDOWN_DRAIN_S="0", SHUTDOWN_GRACE_S="0")
    account = await books.account(limits=LIMITS)
    script = {"ref": account.key_id.hex, "pieces": PIECES, "first_delay_ms": 1500, **CACHED}
    caller = await Caller.ask(api, account, scripted(**script), form)
    await served(simulator, account.key_id.hex, ended=False)
    async with books.connection() as keeper, keeper.transaction():
        await keeper.execute("SELECT FROM usage_requests WHERE tenant_id = $1 FOR UPDATE", account.tenant_id)
        if form.streams:
            await caller.hears(form.frame_end(PIECES[-1]))
        await served(simulator, account.key_id.hex, ended=True)
        await eventually(lambda: books.fetch(WAITING_SETTLEMENT))
        api.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)

    answer = await caller.rest()
    if form.name in ENDS:
        assert answer.endswith(ENDS[form.name])
    elif form is SOCKET:
        assert '{"done":true}' in answer
    elif form.streams:
        assert answer.endswith('{"type":"message_stop"}\n\n\r\n0\r\n\r\n')
    else:
        assert "".join(PIECES).replace("\n", "\\n") in answer
        assert '"stop_reason":"end_turn"' in answer
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"]) == ("completed", "final")


@all_forms
async def test_output_that_cannot_be_counted_is_estimated(
    api: Api, books: Books, simulator: Simulator, form: Form
) -> None:
    model = RARE_MODELS[form.name]
    words = ["and so the words go by, one after the other, "] * 30
    plain = [FAILING_COUNT, *words]
    commas = ["," * 100] * 12  # two characters a token, to this provider
    async with client(api.url) as http:
        for pieces, after, per_token in ((plain, 31, 4), (plain, 9, 4), (commas, None, None), (plain, 31, 2)):
            account = await books.account(limits=LIMITS)
            script = {"ref": account.key_id.hex, "model": model, "pieces": pieces, "cut_after": after, **CACHED}
            await form.ask(http, account, scripted(**script))

            entry = await served(simulator, account.key_id.hex, ended=True)
            (row,) = await books.settled(account, 1)
            assert [row[name] for name in TOKEN_FIELDS if name != "output_tokens"] == [
                entry[name] for name in LEDGER_FIELDS if name != "output_tokens"
            ]
            if per_token is None:
                assert (row["source"], row["output_tokens"]) == ("final", 600)
            else:
                assert (row["source"], row["model"]) == ("estimated", model)
                assert row["output_tokens"] == -(-len("".join(pieces[:after])) // per_token)


@pytest.mark.slow
@all_forms
async def test_nobody_waits_for_the_count(api: Api, books: Books, simulator: Simulator, form: Form) -> None:
    account = await books.account(limits=LIMITS)
    script = {"ref": account.key_id.hex, "pieces": [SLOW_COUNT, "and words"], "cut_after": 2}
    began = time.monotonic()
    async with client(api.url) as http:
        answer = await form.ask(http, account, scripted(**script))

    assert time.monotonic() - began < 2.5
    assert not answer.done
    assert (answer.error is None) == (form is PLAIN), "text has no words for it"
    assert [row["state"] for row in await books.requests(account)] == ["open"]
    (row,) = await books.settled(account, 1)
    entry = await served(simulator, account.key_id.hex, ended=True)
    assert (row["source"], row["output_tokens"]) == ("counted", entry["output_tokens"])
