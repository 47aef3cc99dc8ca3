"""Models that may be charged beside the request's own: allowed by the plan, on the price list, and held at the dearest.

Both stores hold the same.
"""

from dataclasses import replace

import pytest

from core.tenancy.principal import Forbidden
from metering.admission.admission import AdmissionRequest, QuotaExceeded, TooLarge
from metering.pricing.price import Modifiers, UnknownModel, UnknownModifier
from metering.pricing.tokens import Usage
from metering.quota.limits import Limit, LimitSet, Meter, PlanLimits
from metering.quota.query import Grant
from metering.quota.windows import WindowKind
from tests.harness import Account, Books
from tests.metering.process import PATIENCE_S, Process, principal
from tests.metering.scheduled import project

CHEAP, DEAR = "claude-haiku-4-5", "claude-opus-5"
ASK = AdmissionRequest(CHEAP, 100, 1_000, 1_000)
OF_CHEAP, OF_DEAR = (2_000, 5_000), (10_000, 25_000)
"""The dearest rates in nano-USD: of the prompt (cache writes of an hour), and of the output."""


async def admit(process: Process, account: Account, ask: AdmissionRequest, *models: str) -> Grant:
    who = replace(principal(account), models=frozenset(models) or None)
    return await process.admission.admit(who, ask, within_s=PATIENCE_S)


def held(grant: Grant) -> tuple[int, int, int]:
    request = grant.request
    return request.held_prompt_tokens, request.held_output_tokens, request.held_nano_usd


def cost(rates: tuple[int, int], output: int = 100) -> int:
    return 1_000 * rates[0] + output * rates[1]


async def test_the_hold_has_the_rates_of_the_dearest_model(either: Process, books: Books) -> None:
    account = await books.account()

    alone = await admit(either, account, ASK)
    beside = await admit(either, account, replace(ASK, further_models=(DEAR,)))

    assert held(alone) == (1_000, 100, cost(OF_CHEAP))
    assert held(beside) == (1_000, 100, cost(OF_DEAR))
    assert beside.request.model == CHEAP
    assert beside.price == alone.price
    rows = await books.requests(account)
    assert sorted(row["held_nano_usd"] for row in rows) == [cost(OF_CHEAP), cost(OF_DEAR)]


async def test_a_model_that_is_not_listed_or_not_of_the_plan_is_refused(either: Process, books: Books) -> None:
    account = await books.account()
    assert await project(books, account, limits=PlanLimits(models=("claude-haiku-*", "claude-none")))

    with pytest.raises(UnknownModel):
        await admit(either, account, replace(ASK, further_models=("claude-none",)))
    with pytest.raises(Forbidden) as refused:
        await admit(either, account, replace(ASK, further_models=(DEAR,)))

    assert refused.value.code == "model_not_in_plan"
    assert await books.requests(account) == []


async def test_a_modifier_without_a_price_at_a_further_model_is_refused(either: Process, books: Books) -> None:
    account, fast = await books.account(), Modifiers(speed="fast")
    ask = replace(ASK, model=DEAR, modifiers=fast)

    assert held(await admit(either, account, ask)) == (1_000, 100, 2 * cost(OF_DEAR))
    with pytest.raises(UnknownModifier):
        await admit(either, account, replace(ask, further_models=(CHEAP,)))


async def test_a_model_that_the_provider_chooses_is_held_as_the_dearest(either: Process, books: Books) -> None:
    account, ask = await books.account(), replace(ASK, may_choose_model=True)

    assert held(await admit(either, account, ask))[2] > cost(OF_DEAR)
    assert held(await admit(either, account, ask, CHEAP, DEAR))[2] == cost(OF_DEAR)
    assert held(await admit(either, account, ask, CHEAP))[2] == cost(OF_CHEAP)
    fast = replace(ask, model=DEAR, modifiers=Modifiers(speed="fast"))
    assert held(await admit(either, account, fast, CHEAP, DEAR))[2] == 2 * cost(OF_DEAR)
    assert await project(books, account, limits=PlanLimits(models=("claude-haiku-*", DEAR)))
    with pytest.raises(Forbidden) as refused:
        await admit(either, account, ask)
    assert refused.value.code == "model_not_in_plan", "the provider does not know the plan"


@pytest.mark.parametrize("meter", [Meter.OUTPUT, Meter.TOKENS, Meter.SPEND])
async def test_the_output_of_other_models_is_held_beside_the_grant(either: Process, books: Books, meter: Meter) -> None:
    most = {Meter.OUTPUT: 700, Meter.TOKENS: 1_700, Meter.SPEND: cost(OF_CHEAP, 700) // 1_000}[meter]
    account = await books.account(limits=LimitSet((Limit(meter, WindowKind.DAY, most),)))
    ask = replace(ASK, further_output=600, smallest_output=100)

    with pytest.raises(TooLarge):
        await admit(either, account, replace(ask, further_output=601))
    grant = await admit(either, account, ask)
    assert (grant.output_tokens, held(grant)) == (100, (1_000, 700, cost(OF_CHEAP, 700)))
    assert either.settlements.recorder(grant).granted_output_tokens == 100
    assert grant.room == (0,)
    with pytest.raises(QuotaExceeded):
        await admit(either, account, replace(ASK, max_tokens=1))
    await either.settle(grant, Usage(900, 50))
    (status,) = (await either.limit_status.of(account.tenant_id, account.user_id)).limits
    assert status.held == 0
