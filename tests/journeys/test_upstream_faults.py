"""Every failure of the provider, in every form: the client's error, the number of tries, and the stored usage.

Before `message_start`: an HTTP status, and no tokens if the provider refused, else the estimated prompt. After it: an
`error` event (whole: a status), exact input and counted output. No provider text reaches a client, but on
`/v1/messages` what it says about the request itself; no user text reaches a log.
"""

import json
import socket
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.answers import Answer
from tests.harness import SIMULATOR_KEY, TOKEN_FIELDS, Account, Api, Books, Simulator, client, scripted
from tests.journeys.callers import limit_status_when_free, served
from tests.journeys.forms import Form, every_form

LIMITS = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 1_000_000),), concurrency=1)
SOON: dict[str, Any] = {"retry_after": 0.01}
COME_BACK_S = 5
UPSTREAM_WORDS = ("simulator", "Overloaded", "req_0", "anthropic", "told to fail")
CHAT_WORDS = (*UPSTREAM_WORDS, "overloaded_error", "api_error")
PASSED_ON = {400: "invalid_request_error", 404: "not_found_error", 413: "request_too_large"}
"""What the provider says about the request itself, on `/v1/messages`."""

BEFORE_THE_HEAD = [
    # script, then what our client gets: status, code, Retry-After; and how often the provider is asked
    ({"status": 400}, (502, "upstream_rejected", None), 1),
    ({"status": 401}, (502, "upstream_credentials", None), 1),
    ({"status": 402}, (502, "upstream_account", None), 1),
    ({"status": 403}, (502, "upstream_credentials", None), 1),
    ({"status": 404}, (502, "upstream_model", None), 1),
    ({"status": 408} | SOON, (504, "upstream_timeout", None), 3),
    ({"status": 409} | SOON, (503, "upstream_busy", 1), 3),
    ({"status": 413}, (413, "input_too_large", None), 1),
    ({"status": 418} | SOON, (502, "upstream_rejected", None), 1),
    ({"status": 429}, (503, "upstream_rate_limited", COME_BACK_S), 1),  # a spend cap: it would not help
    ({"status": 429} | SOON, (503, "upstream_rate_limited", 1), 3),
    ({"status": 429, "retry_after": 3600}, (503, "upstream_rate_limited", 3600), 1),
    ({"status": 500} | SOON, (502, "upstream_broken", None), 3),
    ({"status": 501} | SOON, (502, "upstream_broken", None), 1),
    ({"status": 502} | SOON, (502, "upstream_broken", None), 3),
    ({"status": 503} | SOON, (503, "upstream_overloaded", 1), 3),
    ({"status": 504} | SOON, (504, "upstream_timeout", None), 3),
    ({"status": 529} | SOON, (503, "upstream_overloaded", 1), 3),
    ({"status": 529}, (503, "upstream_overloaded", COME_BACK_S), 3),
    ({"status": 529, "retry_after": 200}, (503, "upstream_overloaded", 200), 1),
    ({"status": 529, "fail_times": 3} | SOON, (503, "upstream_overloaded", 1), 3),
    ({"error_first": True}, (503, "upstream_overloaded", COME_BACK_S), 1),
    ({"error_first": True, "error_type": "rate_limit_error"}, (503, "upstream_rate_limited", COME_BACK_S), 1),
    ({"error_first": True, "error_type": "timeout_error"}, (504, "upstream_timeout", None), 1),
    ({"error_first": True, "error_type": "authentication_error"}, (502, "upstream_credentials", None), 1),
    ({"error_first": True, "error_type": "permission_error"}, (502, "upstream_credentials", None), 1),
    ({"error_first": True, "error_type": "billing_error"}, (502, "upstream_account", None), 1),
    ({"error_first": True, "error_type": "invalid_request_error"}, (502, "upstream_rejected", None), 1),
    ({"error_first": True, "error_type": "not_found_error"}, (502, "upstream_model", None), 1),
    ({"error_first": True, "error_type": "request_too_large"}, (413, "input_too_large", None), 1),
    ({"error_first": True, "error_type": "api_error"}, (502, "upstream_broken", None), 1),
    ({"error_first": True, "error_type": "error_of_the_future"}, (502, "upstream_broken", None), 1),
    ({"empty_body": True}, (502, "upstream_broken", None), 1),
]
AFTER_THE_HEAD = [
    # script, then the error event: status, code
    ({"error_after": 2}, 503, "upstream_overloaded"),
    ({"error_after": 2, "coalesce": True}, 503, "upstream_overloaded"),
    ({"error_after": 2, "error_type": "rate_limit_error"}, 503, "upstream_rate_limited"),
    ({"error_after": 2, "error_type": "api_error"}, 502, "upstream_broken"),
    ({"error_after": 0}, 503, "upstream_overloaded"),
    ({"error_after": 9}, 503, "upstream_overloaded"),
    ({"cut_after": 0}, 502, "upstream_broken"),
    ({"cut_after": 2}, 502, "upstream_broken"),
    ({"cut_after": 2, "coalesce": True}, 502, "upstream_broken"),
    ({"cut_after": 9}, 502, "upstream_broken"),
    ({"end_after": 0}, 502, "upstream_broken"),
    ({"end_after": 2}, 502, "upstream_broken"),
    ({"bad_json_after": 0}, 502, "upstream_broken"),
    ({"bad_json_after": 2}, 502, "upstream_broken"),
    ({"cut_after": 1, "input_tokens": 0}, 502, "upstream_broken"),
    ({"cut_after": 1, "thinking": 40}, 502, "upstream_broken"),
]
PIECES = ["One piece", " and one", " more"]
CACHED: dict[str, Any] = {"cache_read_input_tokens": 3, "cache_creation_5m": 5, "cache_creation_1h": 7}


def _named(value: object) -> str | None:
    return json.dumps(value) if isinstance(value, dict) else ""


def assert_says_nothing(answer: Answer, account: Account, api: Api, canary: str, form: Form) -> None:
    """Asserts that no provider text reached the client, and no client text our logs."""
    told = json.dumps(answer.error) + str(answer.headers)
    words_of_provider = CHAT_WORDS if form.is_chat else UPSTREAM_WORDS
    assert not [words for words in (*words_of_provider, SIMULATOR_KEY, account.key, canary) if words in told]
    log = api.log.read_text()
    assert not [words for words in (SIMULATOR_KEY, account.key, canary, "told to fail") if words in log]


async def assert_nothing_is_left(http: httpx2.AsyncClient, account: Account, *, used: int) -> None:
    """Asserts that nothing is held or active, and so much used."""
    assert (await limit_status_when_free(http, account))["used"] == used


async def assert_billed_prompt(
    http: httpx2.AsyncClient, books: Books, account: Account, outcome: str, *, tokens: int = 0
) -> None:
    """Asserts one settled row: one request, with the prompt's tokens, if any."""
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"]) == (outcome, "estimated" if tokens else "final")
    assert [row[name] for name in ("requests", *TOKEN_FIELDS, "output_chars")] == [1, tokens, 0, 0, 0, 0, 0]
    assert row["cost_nano_usd"] == tokens * 3_000
    await assert_nothing_is_left(http, account, used=tokens)


@every_form
@pytest.mark.parametrize(("script", "told", "asks"), BEFORE_THE_HEAD, ids=_named)
async def test_before_the_head_it_is_a_status(
    api: Api,
    http: httpx2.AsyncClient,
    books: Books,
    simulator: Simulator,
    script: dict[str, Any],
    told: tuple[int, str, int | None],
    asks: int,
    form: Form,
) -> None:
    status, code, retry_after_s = told
    account, canary = await books.account(limits=LIMITS), uuid4().hex
    ref = account.key_id.hex

    answer = await form.ask(http, account, scripted(canary, ref=ref, **script, **CACHED))

    passed_on = None if form.is_chat else PASSED_ON.get(script.get("status", 0))
    if passed_on is None:
        form.assert_told(answer, status, code, started=False)
        assert_says_nothing(answer, account, api, canary, form)
    else:
        assert answer.error is not None
        assert (answer.status, answer.error["error"]["type"]) == (script["status"], passed_on)
        assert answer.error["error"]["message"] == "The simulator was told to fail."
    assert answer.headers.get("retry-after") == (None if retry_after_s is None else str(retry_after_s))
    assert len(simulator.ledger(ref)) == asks
    tokens = simulator.ledger(ref)[-1]["input_tokens"] if script.get("empty_body") else 0
    await assert_billed_prompt(http, books, account, "upstream_refused", tokens=tokens)


@every_form
@pytest.mark.parametrize(("script", "status", "code"), AFTER_THE_HEAD, ids=_named)
async def test_after_the_head_it_is_an_error_event_and_what_was_used_is_paid(
    api: Api,
    http: httpx2.AsyncClient,
    books: Books,
    simulator: Simulator,
    script: dict[str, Any],
    status: int,
    code: str,
    form: Form,
) -> None:
    account, canary = await books.account(limits=LIMITS), uuid4().hex
    ref = account.key_id.hex
    relayed = min(after for name, after in script.items() if name.endswith("_after"))

    answer = await form.ask(http, account, scripted(canary, ref=ref, pieces=PIECES, **script, **CACHED))

    assert answer.pieces == (PIECES[:relayed] if form.streams else [])
    form.assert_told(answer, status, code, started=True)
    assert_says_nothing(answer, account, api, canary, form)
    (entry,) = simulator.ledger(ref)
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"]) == ("upstream_broke", "counted")
    chars = len("".join(PIECES[:relayed])) + 4 * script.get("thinking", 0)  # the simulator's: 4 letters a token
    assert (row["requests"], row["output_chars"]) == (1, chars)
    counts = [row[name] for name in TOKEN_FIELDS]
    assert counts == [script.get("input_tokens", entry["input_tokens"]), entry["output_tokens"], 3, 5, 7]
    rates = (3_000, 15_000, 300, 3_750, 6_000)
    assert row["cost_nano_usd"] == sum(count * rate for count, rate in zip(counts, rates, strict=True))
    await assert_nothing_is_left(http, account, used=sum(counts))


@every_form
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
async def test_a_try_again_that_succeeds_is_one_answer_and_one_bill(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator, status: int, form: Form
) -> None:
    account = await books.account(limits=LIMITS)
    ref = account.key_id.hex

    answer = await form.ask(http, account, scripted(ref=ref, status=status, fail_times=2, pieces=PIECES, **SOON))

    assert (answer.status, answer.done, answer.text) == (200, True, "".join(PIECES))
    entries = simulator.ledger(ref)
    assert [entry["state"] for entry in entries] == ["error", "error", "completed"]
    (row,) = await books.requests(account)
    assert (row["outcome"], row["source"], row["requests"]) == ("completed", "final", 1)
    assert (row["input_tokens"], row["output_tokens"]) == (entries[2]["input_tokens"], entries[2]["output_tokens"])
    assert row["upstream_request_id"] == entries[2]["request_id"]
    await assert_nothing_is_left(http, account, used=entries[2]["input_tokens"] + entries[2]["output_tokens"])


@every_form
async def test_a_reported_zero_stays_zero(http: httpx2.AsyncClient, books: Books, form: Form) -> None:
    account = await books.account(limits=LIMITS)

    zeros = scripted(input_tokens=0, output_tokens=0, start_output_tokens=8, usage_delta_input=True, pieces=PIECES)
    assert (await form.ask(http, account, zeros)).done

    (row,) = await books.requests(account)
    assert (row["source"], row["requests"], *(row[name] for name in TOKEN_FIELDS)) == ("final", 1, 0, 0, 0, 0, 0)


@every_form
@pytest.mark.parametrize(("refusal", "outcome"), [("empty", "refused"), ("partial", "completed")])
async def test_a_refusal_without_a_word_is_free(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator, refusal: str, outcome: str, form: Form
) -> None:
    account = await books.account(limits=LIMITS)

    answer = await form.ask(http, account, scripted(ref=account.key_id.hex, refusal=refusal, pieces=PIECES))

    assert answer.done
    (entry,) = simulator.ledger(account.key_id.hex)
    (row,) = await books.requests(account)
    assert (row["outcome"], row["stop_reason"]) == (outcome, "refusal")
    paid = (0, 0) if refusal == "empty" else (entry["input_tokens"], entry["output_tokens"])
    assert (row["input_tokens"], row["output_tokens"]) == paid
    await assert_nothing_is_left(http, account, used=sum(paid))


@pytest.mark.slow
@every_form
async def test_a_provider_that_nobody_reaches(start_api: Callable[..., Api], books: Books, form: Form) -> None:
    with socket.socket() as dead:  # bound, and never listening
        dead.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{dead.getsockname()[1]}"
        api = start_api(ANTHROPIC_BASE_URL=url, LOG_LEVEL="debug", FAILING_REQUESTS_PER_MINUTE="1")
        account, canary = await books.account(limits=LIMITS), uuid4().hex
        async with client(api.url) as http:
            answer = await form.ask(http, account, canary)

            form.assert_told(answer, 502, "upstream_unreachable", started=False)
            retries = [line for line in api.log.read_text().splitlines() if '"upstream_retry"' in line]
            assert [json.loads(line)["tries"] for line in retries] == [1, 2]
            assert {json.loads(line)["request_id"] for line in retries} == {answer.headers["x-request-id"]}
            assert_says_nothing(answer, account, api, canary, form)
            await assert_billed_prompt(http, books, account, "not_sent")

            again = await form.ask(http, account, canary)
            form.assert_told(again, 429, "too_many_failures", started=False)
            assert 50 <= again.retry_after_s <= 60
            assert len(await books.requests(account)) == 1
            assert (await form.ask(http, await books.account(), canary)).status == 502


@pytest.mark.slow
@every_form
async def test_a_provider_that_is_silent(
    start_api: Callable[..., Api], books: Books, simulator: Simulator, form: Form
) -> None:
    api = start_api(UPSTREAM_READ_TIMEOUT_S="0.5", UPSTREAM_OPEN_TIMEOUT_S="1.2", LOG_LEVEL="debug")
    async with client(api.url) as http:
        for script, outcome in (
            ({"head_delay_ms": 60_000}, "upstream_refused"),
            ({"stall_after": 0}, "upstream_broke"),
            ({"stall_after": 2}, "upstream_broke"),
        ):
            account, canary = await books.account(limits=LIMITS), uuid4().hex
            ref = account.key_id.hex
            answer = await form.ask(http, account, scripted(canary, ref=ref, pieces=PIECES, **script))

            form.assert_told(answer, 504, "upstream_timeout", started="stall_after" in script)
            entry = await served(simulator, ref, ended=True)
            assert entry["state"] == "client_gone"
            assert_says_nothing(answer, account, api, canary, form)
            (row,) = await books.settled(account, 1)
            heard = script.get("stall_after", 0) if form.streams else 0
            assert (row["outcome"], len(answer.pieces)) == (outcome, heard)
            paid = (entry["input_tokens"], entry["output_tokens"])
            assert (row["input_tokens"], row["output_tokens"]) == paid
            await assert_nothing_is_left(http, account, used=sum(paid))
