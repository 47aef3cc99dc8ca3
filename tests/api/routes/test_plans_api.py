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
    "models": ["claude-sonnet-4-5*", "claude-sonnet-4-6"],
}
UNEVEN = (
    "tokens of every model are sold alike, but an input token of claude-sonnet-4-6 costs 3 times as much as one of"
    " claude-haiku-4-5: price spend, or name models of one price"
)


async def test_a_price_is_kept_as_it_was_said(api: Api) -> None:
    admin = await api.platform_admin()
    made = (await api.call(admin, "POST", "/plans", expect=201, json=GOOD)).json()
    assert {name: made[name] for name in GOOD} == GOOD
    assert (made["version"], made["warnings"]) == (1, [])
    dear = (await api.call(admin, "POST", "/plans", expect=201, json=GOOD | {"base_paise": 1_300_000})).json()
    assert (dear["version"], len(dear["warnings"])) == (2, 1)
    assert (await api.call(admin, "GET", "/plans", expect=200)).json()["items"] == [made | {"state": "withdrawn"}, dear]


async def test_versions_are_offered_and_withdrawn(api: Api) -> None:
    admin, tenant = await api.platform_admin(), await api.tenant_admin()
    await api.call(admin, "POST", "/plans", expect=201, json=GOOD)
    draft = (await api.call(admin, "POST", "/plans", expect=201, json=GOOD | {"draft": True})).json()
    assert (draft["version"], draft["state"]) == (2, "draft")

    async def on_offer() -> list[int]:
        offers = (await api.http.get("/v1/billing/plans", headers=tenant.headers)).json()
        return [offer["version"] for offer in offers]

    assert await on_offer() == [1]
    assert (await api.call(admin, "POST", "/plans/team/2/offer", expect=200)).json()["state"] == "offered"
    assert await on_offer() == [2]
    answer = await api.http.post(
        "/v1/billing/subscription", headers=tenant.headers, json={"plan": "team", "version": 1}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert (await api.call(admin, "POST", "/plans/team/2/withdraw", expect=200)).json()["state"] == "withdrawn"
    assert await on_offer() == []
    await api.call(admin, "POST", "/plans/team/3/offer", expect=404)
    await api.call(tenant, "POST", "/plans/team/1/offer", expect=403)


async def test_a_threshold_is_kept_and_needs_a_plan_that_bills(api: Api) -> None:
    admin = await api.platform_admin()
    made = (await api.call(admin, "POST", "/plans", expect=201, json=GOOD | {"threshold_paise": 500_000})).json()
    assert made["threshold_paise"] == 500_000
    wrong = {"threshold_paise": 500_000, "past_allowance": "block", "ceiling_paise": None}
    await api.call(admin, "POST", "/plans", expect=422, json=GOOD | wrong)


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


async def test_tokens_of_models_with_different_prices_are_warned_of(api: Api) -> None:
    admin, tenant = await api.platform_admin(), await api.tenant_admin()
    both = GOOD | {"models": ["claude-haiku-4-5", "claude-sonnet-4-6"]}
    made = (await api.call(admin, "POST", "/plans", expect=201, json=both)).json()
    assert (made["state"], made["warnings"]) == ("offered", [UNEVEN])
    spend = both | {"code": "credits", "meters": [METER | {"meter": "spend"}]}
    assert (await api.call(admin, "POST", "/plans", expect=201, json=spend)).json()["warnings"] == []
    listed = (await api.call(admin, "GET", "/plans", expect=200)).json()["items"]
    assert [(plan["code"], plan["warnings"]) for plan in listed] == [("credits", []), ("team", [UNEVEN])]
    for act in ("withdraw", "offer"):
        assert (await api.call(admin, "POST", f"/plans/team/1/{act}", expect=200)).json()["warnings"] == [UNEVEN]
    offers = await api.http.get("/v1/billing/plans", headers=tenant.headers)
    assert {offer["code"] for offer in offers.json()} == {"credits", "team"}
    assert "warnings" not in offers.text, "only the operator sees them"


async def test_a_price_counts_for_the_warning_once_it_is_in_force(api: Api) -> None:
    admin = await api.platform_admin()
    rates = ("input_rate", "output_rate", "cache_read_rate", "cache_write_5m_rate", "cache_write_1h_rate")
    next_price = {
        "model": "claude-sonnet-4-5-next",
        "effective_from": "2099-01-01T00:00:00Z",
        "bands": [{"over_prompt_tokens": 0, **dict.fromkeys(rates, 30_000)}],
    }
    await api.call(admin, "POST", "/prices", expect=201, json=next_price)
    assert (await api.call(admin, "POST", "/plans", expect=201, json=GOOD)).json()["warnings"] == []
    await api.call(admin, "POST", "/prices", expect=201, json=next_price | {"effective_from": "2024-01-01T00:00:00Z"})
    (plan,) = (await api.call(admin, "GET", "/plans", expect=200)).json()["items"]
    assert [("claude-sonnet-4-5-next costs 10 times" in warning) for warning in plan["warnings"]] == [True]


async def test_without_razorpay_there_are_no_copies(api: Api) -> None:
    admin = await api.platform_admin()
    await api.call(admin, "POST", "/plans", expect=201, json=GOOD)
    assert (await api.call(admin, "GET", "/razorpay-plans?code=team", expect=200)).json()["items"] == []
    await api.call(await api.tenant_admin(), "GET", "/razorpay-plans", expect=403)
