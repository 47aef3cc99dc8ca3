"""Over HTTP: what billing's word comes to, as a 402 in the one shape of errors, and as limits with a charge."""

from core.tenancy.principal import Scope
from metering.admission.entitlements import project_entitlement
from metering.quota.limits import Ceiling, Meter, PlanLimits, PricedMeter
from metering.quota.schedule import Refusal, Schedule, Segment
from tests.api.conftest import Api
from tests.harness import Account


async def project(api: Api, account: Account, limits: PlanLimits, refusal: Refusal | None = None) -> None:
    """As billing does it, but that nobody is told."""
    async with api.books.database.session() as session:
        schedule = Schedule((Segment(0, "team@1", limits, refusal),))
        await project_entitlement(session, account.tenant_id, plan_version="team@1", limits=limits, schedule=schedule)


async def test_a_tenant_that_has_to_pay_first_is_told_so_and_nothing_is_stored(api: Api) -> None:
    account = await api.books.account()
    await project(api, account, PlanLimits(), Refusal("bill_overdue", "a bill is overdue: ask your administrator"))
    answer = await api.http.post("/chat", headers=account.headers, json={"message": "hello"})
    body = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (402, "application/problem+json")
    assert body.pop("request_id") == answer.headers["x-request-id"]
    assert body == {
        "type": "urn:naka:problem:bill_overdue",
        "title": "Payment Required",
        "status": 402,
        "detail": "a bill is overdue: ask your administrator",
        "code": "bill_overdue",
    }
    assert "retry-after" not in answer.headers
    assert await api.books.requests(account) == []


async def test_a_body_that_makes_no_sense_is_no_matter_of_payment(api: Api) -> None:
    account = await api.books.account()
    await project(api, account, PlanLimits(), Refusal("bill_overdue", "pay"))
    answer = await api.http.post("/chat", headers=account.headers, json={"message": 5})
    assert answer.status_code == 422


async def test_limits_show_a_ceiling_in_paise(api: Api) -> None:
    account = await api.books.account(scopes=[Scope.CHAT, Scope.USAGE_READ])
    await project(api, account, PlanLimits(ceiling=Ceiling(50_000, (PricedMeter(Meter.OUTPUT, 100, 900),))))
    answer = await api.http.get("/v1/limits", headers=account.headers)
    (window,) = answer.json()["windows"]
    assert window.pop("resets_at")
    assert window == {
        "scope": "tenant",
        "meter": "charge",
        "window": "period",
        "limit": 50_000,
        "used": 0,
        "held": 0,
        "remaining": 50_000,
        "used_percent": 0,
        "tag": None,
    }


async def test_limits_show_what_the_plan_allows_and_the_rest_is_forbidden(api: Api) -> None:
    account = await api.books.account(scopes=[Scope.CHAT, Scope.USAGE_READ])
    answer = (await api.http.get("/v1/limits", headers=account.headers)).json()
    assert (answer["features"], answer["models"]) == ([], None)
    await project(api, account, PlanLimits(features=("web_search", "mcp"), models=("claude-haiku-*",)))
    api.app.state.runtime.metering.entitlements.forget(account.tenant_id)
    answer = (await api.http.get("/v1/limits", headers=account.headers)).json()
    assert (answer["features"], answer["models"]) == (["mcp", "web_search"], ["claude-haiku-*"])
    refused = await api.http.post("/chat", headers=account.headers, json={"message": "hello"})
    assert (refused.status_code, refused.json()["code"]) == (403, "model_not_in_plan")
    assert refused.json()["detail"] == "Your plan does not include the model 'claude-sonnet-4-6'."
    assert await api.books.requests(account) == []


async def test_a_charge_is_nothing_that_an_admin_can_limit(api: Api) -> None:
    operator, account = await api.platform_admin(), await api.books.account()
    limits = [{"meter": "charge", "window": "period", "limit": 1}]
    await api.call(operator, "PUT", f"/tenants/{account.tenant_id}/limits", json={"limits": limits}, expect=422)
