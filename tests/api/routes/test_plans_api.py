"""Publishing plans with prices, over HTTP."""

from typing import Any

import pytest

from tests.api.conftest import Api

METER = {"meter": "output_tokens", "allowance": 2_000_000, "rate_paise": 160_000}
GOOD: dict[str, Any] = {
    "code": "team",
    "name": "Team",
    "base_paise": 299_900,
    "meters": [METER],
    "past_allowance": "bill",
    "ceiling_paise": 1_000_000,
    "when_unpaid": "free",
    "trial_days": 14,
    "features": ["mcp", "web_search"],
    "models": ["claude-haiku-*", "claude-sonnet-4-6"],
}


async def test_a_price_is_kept_as_it_was_said(api: Api) -> None:
    admin = await api.platform_admin()
    made = (await api.call(admin, "POST", "/plans", expect=201, json=GOOD)).json()
    assert {name: made[name] for name in GOOD} == GOOD
    assert (made["version"], made["warnings"]) == (1, [])
    dear = (await api.call(admin, "POST", "/plans", expect=201, json=GOOD | {"base_paise": 1_300_000})).json()
    assert (dear["version"], len(dear["warnings"])) == (2, 1)
    assert (await api.call(admin, "GET", "/plans", expect=200)).json()["items"] == [made, dear]


@pytest.mark.parametrize(
    "bad",
    [
        {"base_paise": 99},
        {"base_paise": -1},
        {"base_paise": 2999.5},
        {"base_paise": 0},
        {"trial_days": 366},
        {"ceiling_paise": None},
        {"meters": [METER, METER]},
        {"meters": [METER, METER | {"meter": "spend"}]},
        {"meters": [METER | {"meter": "requests"}]},
        {"meters": [METER | {"rate_paise": -1}]},
        {"when_unpaid": "never"},
        {"features": ["files"]},
        {"features": None},
        {"models": []},
        {"models": ["*"]},
        {"models": ["claude-*-5"]},
        {"models": ["claude-sonnet-4-7"]},
    ],
    ids=str,
)
async def test_a_price_that_cannot_be_is_refused_and_not_stored(api: Api, bad: dict[str, Any]) -> None:
    admin = await api.platform_admin()
    answer = await api.call(admin, "POST", "/plans", expect=422, json=GOOD | bad)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 422
    assert (await api.call(admin, "GET", "/plans", expect=200)).json()["items"] == []


async def test_a_plan_that_names_neither_allows_every_model_and_no_feature(api: Api) -> None:
    admin = await api.platform_admin()
    plain = {name: value for name, value in GOOD.items() if name not in {"features", "models"}}
    made = (await api.call(admin, "POST", "/plans", expect=201, json=plain)).json()
    assert (made["features"], made["models"]) == ([], None)


async def test_without_razorpay_there_are_no_copies(api: Api) -> None:
    admin = await api.platform_admin()
    await api.call(admin, "POST", "/plans", expect=201, json=GOOD)
    assert (await api.call(admin, "GET", "/razorpay-plans?code=team", expect=200)).json()["items"] == []
    await api.call(await api.tenant_admin(), "GET", "/razorpay-plans", expect=403)
