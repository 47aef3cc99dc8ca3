"""Two hundred concurrent requests of one user against a limit of 10,000 tokens: never exceeded, and nearly used up."""

import asyncio
from datetime import UTC, datetime

import httpx2

from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.answers import Answer
from tests.harness import TOKEN_FIELDS, Account, Books, Simulator, chat, scripted

LIMIT = 10_000
AT_ONCE = 200
SMALLEST_GRANT = 64


async def test_the_limit_is_used_up_and_never_passed(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator
) -> None:
    limits = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, LIMIT),))
    account = await books.account(limits=limits)
    message = scripted(ref=account.key_id.hex, words=120)

    first_refusals = await asyncio.gather(*(_until_refused_for_good(http, account, message) for _ in range(AT_ONCE)))

    served = simulator.ledger(account.key_id.hex)
    used = sum(entry["input_tokens"] + entry["output_tokens"] for entry in served)
    rows = await books.requests(account)
    assert used == sum(row[name] for row in rows for name in TOKEN_FIELDS)
    assert used <= LIMIT
    prompt = served[0]["input_tokens"]
    assert LIMIT - used < _hold_of_smallest(prompt, message), f"{LIMIT - used} tokens left unused"
    assert {row["state"] for row in rows} == {"settled"}

    held = [answer for answers in first_refusals for answer in answers if _code(answer) == "held"]
    spent = [answer for answers in first_refusals for answer in answers if _code(answer) == "limit_reached"]
    assert held, "nobody was ever told to come back in a moment"
    assert len(spent) == AT_ONCE, "everybody is told in the end that the limit is used up"
    assert {answer.retry_after_s for answer in held} <= {1, 2}
    (window,) = (await http.get("/v1/limits", headers=account.headers)).json()["windows"]
    until_midnight = (datetime.fromisoformat(window["resets_at"]) - datetime.now(UTC)).total_seconds()
    assert all(until_midnight - 1 <= answer.retry_after_s <= until_midnight + 60 for answer in spent)
    assert (window["used"], window["held"], window["remaining"]) == (used, 0, LIMIT - used)
    for answer in (*held, *spent):
        assert answer.headers["ratelimit-policy"] == f'"user-tokens-day";q={LIMIT};w=86400;qu="tokens"'
        assert answer.headers["ratelimit"] == f'"user-tokens-day";r=0;t={answer.retry_after_s}'


async def _until_refused_for_good(http: httpx2.AsyncClient, account: Account, message: str) -> list[Answer]:
    """A well-behaved client: it retries after a moment, and gives up when the window is used up."""
    refusals = []
    while True:
        answer = await chat(http, account, message)
        if answer.status == 200:
            assert answer.done
            continue
        assert answer.status == 429, answer.error
        refusals.append(answer)
        if _code(answer) == "limit_reached":
            return refusals
        await asyncio.sleep(answer.retry_after_s)


def _code(answer: Answer) -> str:
    assert answer.error is not None
    return str(answer.error["code"])


def _hold_of_smallest(prompt: int, message: str) -> int:
    """Returns the tokens that the smallest grant holds: the counted prompt with its slack, and the smallest answer."""
    counted = prompt + prompt // 50 + 8
    by_bytes = len(message.encode()) + len(b"You are a concise assistant.") + 32
    return max(counted, by_bytes) + SMALLEST_GRANT
