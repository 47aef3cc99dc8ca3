"""A budget for a feature: a hundred chats with its tag at once use it up and never pass it, and it says so."""

import asyncio
from typing import Any

import httpx2
import pytest

from core.tenancy.principal import Scope
from metering.quota.limits import Meter
from metering.quota.windows import WindowKind
from tests.answers import Answer
from tests.harness import TOKEN_FIELDS, Account, Books, Simulator, chat, scripted
from tests.metering.budgeted import at_most, limit_tag

LIMIT = 6_000


@pytest.mark.slow
async def test_a_hundred_chats_of_a_feature_never_pass_its_budget(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator
) -> None:
    account = await books.account(scopes=[Scope.CHAT, Scope.USAGE_READ])
    other = await books.account(tenant_id=account.tenant_id)
    await limit_tag(books, account, at_most(Meter.TOKENS, LIMIT, WindowKind.PERIOD))
    ref = account.key_id.hex
    message = scripted(ref=ref, words=120)
    asked = [_until_used_up(http, (account, other)[number % 2], message) for number in range(100)]
    refused = [answer for answers in await asyncio.gather(*asked) for answer in answers]

    served = simulator.ledger(ref)
    used = sum(entry["input_tokens"] + entry["output_tokens"] for entry in served)
    rows = [*await books.requests(account), *await books.requests(other)]
    assert used == sum(row[name] for row in rows for name in TOKEN_FIELDS) <= LIMIT
    codes = {_body(answer)["code"] for answer in refused}
    assert codes == {"held", "budget_exhausted"}
    name, policy = '"tag-feature-tokens-period"', f'"tag-feature-tokens-period";q={LIMIT};qu="tokens"'
    for answer in refused:
        body = _body(answer)
        assert (answer.headers["ratelimit-policy"], body["limit"]) == (policy, name.strip('"'))
        assert answer.headers["ratelimit"] == f"{name};r=0;t={answer.retry_after_s}"
        if body["code"] == "held":
            assert answer.retry_after_s == 1
            assert (
                "Running requests with this feature tag hold the rest of this period's 6,000 tokens" in body["detail"]
            )
        else:
            assert answer.retry_after_s > 3_600 or "They reset in" in body["detail"]
            assert "an admin of your account can raise this budget" in body["detail"]

    shown = await http.get("/v1/limits", headers=account.headers | {"Naka-Tags": "feature=search"})
    window = shown.json()["windows"][-1]
    assert (window["scope"], window["used"], window["held"], window["remaining"]) == ("tag", used, 0, LIMIT - used)
    free = await chat(http, account, scripted(words=3))
    assert free.status == 200, "a request without the tag has no budget"


async def test_a_budget_cuts_an_answer_as_a_limit_does(http: httpx2.AsyncClient, books: Books) -> None:
    account = await books.account(scopes=[Scope.CHAT, Scope.USAGE_READ])
    message = scripted(words=2_000)
    prompt = len(message.encode()) + len(b"You are a concise assistant.") + 32
    await limit_tag(books, account, at_most(Meter.TOKENS, prompt + 100))
    answer = await chat(http, account, message, tags={"feature": "search"})
    assert (answer.status, answer.done) == (200, True)
    assert '"tag-feature-tokens-day";r=0;' in answer.headers["ratelimit"]
    request = await http.get(f"/v1/usage/requests/{answer.headers['x-request-id']}", headers=account.headers)
    assert (request.json()["stop_reason"], request.json()["granted_output_tokens"]) == ("max_tokens", 100)
    assert request.json()["output_tokens"] == 100


async def _until_used_up(http: httpx2.AsyncClient, account: Account, message: str) -> list[Answer]:
    """A well-behaved client: it retries after a moment, and gives up when the budget is used up."""
    refusals = []
    async with asyncio.timeout(250):
        while True:
            answer = await chat(http, account, message, tags={"feature": "search"})
            if answer.status == 200:
                assert answer.done
                continue
            assert answer.status == 429, answer.error
            refusals.append(answer)
            if _body(answer)["code"] == "budget_exhausted":
                return refusals
            await asyncio.sleep(answer.retry_after_s)


def _body(answer: Answer) -> dict[str, Any]:
    assert answer.error is not None
    return answer.error
