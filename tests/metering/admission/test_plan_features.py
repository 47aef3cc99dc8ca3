"""A plan's features and models: checked in both stores by the terms in force, whatever a process has cached."""

import asyncio
from dataclasses import replace

import pytest

from core.clock import now_ms
from core.tenancy.principal import Forbidden
from metering.admission.admission import TooLarge
from metering.pricing.tokens import Usage
from metering.quota.limits import PlanLimits
from metering.quota.query import Grant
from metering.quota.schedule import Schedule, Segment
from tests.harness import Account, Books
from tests.metering.outage import Start, tokens
from tests.metering.process import MODEL, PATIENCE_S, Process, principal, text_ask
from tests.metering.scheduled import project

SEARCH = frozenset({"web_search"})


async def ask(process: Process, account: Account, *, features: frozenset[str] = SEARCH, model: str = MODEL) -> Grant:
    request = replace(text_ask(100, 68, model=model), features=features, web_searches=5)
    return await process.admission.admit(principal(account), request, within_s=PATIENCE_S)


async def refusal(process: Process, account: Account) -> str:
    with pytest.raises(Forbidden) as refused:
        await ask(process, account)
    return refused.value.code


@pytest.mark.slow
async def test_a_feature_is_refused_unless_the_plan_names_it(either: Process, books: Books) -> None:
    account = await books.account()
    assert await refusal(either, account) == "feature_not_in_plan"
    assert await books.requests(account) == []
    assert await project(books, account, limits=PlanLimits(features=("web_search",)))
    await either.settle(await ask(either, account), Usage(1, 1))
    assert await project(books, account, limits=PlanLimits(features=("mcp",)))
    assert await refusal(either, account) == "feature_not_in_plan"
    await ask(either, account, features=frozenset())


async def test_a_model_is_refused_unless_the_plan_names_it(either: Process, books: Books) -> None:
    account = await books.account()
    assert await project(books, account, limits=PlanLimits(models=("claude-haiku-*",), features=("web_search",)))
    assert await refusal(either, account) == "model_not_in_plan"
    assert (await ask(either, account, model="claude-haiku-4-5")).request.model == "claude-haiku-4-5"
    assert len(await books.requests(account)) == 1


@pytest.mark.slow
async def test_the_terms_in_force_decide_and_not_those_of_the_read(either: Process, books: Books) -> None:
    account = await books.account()
    later_ms = now_ms() + 1_500
    with_search = Segment(later_ms, "team@2", PlanLimits(features=("web_search",)))
    assert await project(books, account, Schedule((with_search,)))
    assert await refusal(either, account) == "feature_not_in_plan"
    await asyncio.sleep((later_ms - now_ms()) / 1000 + 0.1)
    assert (await ask(either, account)).request.plan_version == "team@2"


async def test_a_process_with_an_older_plan_in_its_cache_is_corrected(start: Start, books: Books) -> None:
    process, account = await start(remember_s=60), await books.account()
    assert await refusal(process, account) == "feature_not_in_plan"
    await project(books, account, limits=PlanLimits(features=("web_search",)))
    await ask(process, account)
    await project(books, account)
    assert await refusal(process, account) == "feature_not_in_plan"


async def test_a_request_may_ask_for_no_output_at_all(either: Process, books: Books) -> None:
    account = await books.account()
    grant = await either.admission.admit(principal(account), text_ask(0, 68), within_s=PATIENCE_S)
    assert (grant.request.held_prompt_tokens, grant.request.held_output_tokens) == (100, 0)
    await either.settle(grant, Usage(0, 0, 0, 90, 0))


async def test_a_request_may_name_the_fewest_tokens_that_are_worth_a_grant(either: Process, books: Books) -> None:
    account = await books.account(limits=tokens(1_000))
    with pytest.raises(TooLarge):
        await either.admission.admit(principal(account), replace(text_ask(2_000, 68), smallest_output=901))
    grant = await either.admission.admit(principal(account), replace(text_ask(2_000, 68), smallest_output=900))
    assert grant.request.held_output_tokens == 900
