"""A conversation on `/chat`: the provider reads the earlier turns, and every token of them is in the books."""

import base64
import json
from typing import Any

import httpx2

from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Books, Simulator, chat, scripted

PAST_THE_WINDOW = 600_000
"""Bytes of digits, half a token each in the simulator."""
OLD_WINDOW_MODEL = "claude-haiku-4-5"


async def test_earlier_turns_are_read_and_billed(http: httpx2.AsyncClient, books: Books, simulator: Simulator) -> None:
    account = await books.account()
    ref, turns = account.key_id.hex, list[dict[str, str]]()

    for number in range(3):
        question = scripted(f"Question {number}", ref=ref, words=20 + number)
        answer = await chat(http, account, question, **({"messages": turns} if turns else {}))
        assert answer.done
        turns = [*turns, {"role": "user", "text": question}, {"role": "assistant", "text": answer.text}]

    served, rows = simulator.ledger(ref), await books.requests(account)
    assert [row["source"] for row in rows] == ["final"] * 3
    for row, ours in zip(served, rows, strict=True):
        assert [ours[name] for name in TOKEN_FIELDS] == [row[name] for name in LEDGER_FIELDS]
        assert row["input_tokens"] <= ours["held_prompt_tokens"]
    assert served[0]["input_tokens"] < served[1]["input_tokens"] < served[2]["input_tokens"]
    last = json.loads(base64.b64decode(simulator.received(ref)[-1]["body"]))
    assert last["messages"] == [{"role": turn["role"], "content": turn["text"]} for turn in turns[:5]]
    usage = (await http.get("/v1/usage", headers=account.headers)).json()["totals"]
    assert [usage[name] for name in TOKEN_FIELDS] == [sum(row[name] for row in served) for name in LEDGER_FIELDS]


async def test_a_conversation_past_the_bound_is_counted(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator
) -> None:
    """Its bytes do not fit the limit, its tokens do; the count has the earlier turns."""
    account = await books.account(limits=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 2_000),)))
    ref = account.key_id.hex
    earlier = conversation("word " * 600)

    answer = await chat(http, account, scripted(ref=ref, words=9), messages=earlier)

    assert answer.done
    (count,), (served,) = simulator.counts(ref), simulator.ledger(ref)
    assert count["input_tokens"] == served["input_tokens"] > 700
    (row,) = await books.requests(account)
    assert row["held_prompt_tokens"] < 2_000


async def test_a_conversation_that_fits_no_window_is_refused(http: httpx2.AsyncClient, books: Books) -> None:
    limited = await books.account(limits=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 500),)))
    unlimited = await books.account()

    by_limit = await chat(http, limited, messages=conversation("1" * 4_000))
    by_model = await chat(
        http, unlimited, scripted(), model=OLD_WINDOW_MODEL, messages=conversation("1" * PAST_THE_WINDOW)
    )

    assert problem_of(by_limit) == (413, "input_exceeds_limit")
    assert problem_of(by_model) == (413, "input_too_large")
    assert await books.requests(limited) == []
    (row,) = await books.requests(unlimited)
    assert (row["outcome"], [row[name] for name in TOKEN_FIELDS]) == ("upstream_refused", [0] * len(TOKEN_FIELDS))


async def test_an_answer_says_what_it_used_and_why_it_ended(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator
) -> None:
    account = await books.account(limits=LimitSet((Limit(Meter.OUTPUT, WindowKind.DAY, 110),)))
    ref = account.key_id.hex
    whole = await chat(http, account, scripted(ref=ref, words=40))
    cut = await chat(http, account, scripted(ref=ref, words=90))

    used = [await own_request(http, account, answer.headers["x-request-id"]) for answer in (whole, cut)]

    assert [each["stop_reason"] for each in used] == ["end_turn", "max_tokens"]
    assert used[1]["granted_output_tokens"] == used[1]["output_tokens"] == 70
    served = simulator.ledger(ref)
    for ours, theirs in zip(used, served, strict=True):
        assert (ours["state"], ours["outcome"]) == ("settled", "completed")
        assert [ours[name] for name in TOKEN_FIELDS] == [theirs[name] for name in LEDGER_FIELDS]
        assert ours["cost_nano_usd"] == theirs["input_tokens"] * 3_000 + theirs["output_tokens"] * 15_000
    for stranger in (await books.account(), await books.account(tenant_id=account.tenant_id)):
        answer = await http.get(f"/v1/usage/requests/{used[0]['id']}", headers=stranger.headers)
        assert (answer.status_code, answer.json()["detail"]) == (404, "no such request")


async def own_request(http: httpx2.AsyncClient, account: Account, request_id: str) -> dict[str, Any]:
    """What the route says of one of the account's requests."""
    answer = await http.get(f"/v1/usage/requests/{request_id}", headers=account.headers)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def conversation(text: str) -> list[dict[str, str]]:
    """Two earlier turns, the second one of `text`."""
    return [{"role": "user", "text": "Tell me."}, {"role": "assistant", "text": text}]


def problem_of(answer: Any) -> tuple[int, str]:
    """The status and code of a refusal."""
    return answer.status, answer.error["code"]
