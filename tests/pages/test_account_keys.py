"""Users, keys, limits and alerts by the account's pages: what is shown once, what is refused, whose it is."""

import base64
import json
import re
import zlib

import httpx2
import pytest

from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.harness import Account
from tests.pages.conftest import SignIn, submit

KEY = re.compile(r'id="secret">(nk_test_[A-Za-z0-9]+)<')
SECRET = re.compile(r'id="secret">(whsec_[A-Za-z0-9+/=]+)<')


@pytest.fixture
async def admin(api: Api) -> Account:
    return await api.tenant_admin()


@pytest.fixture
async def browser(admin: Account, sign_in: SignIn) -> httpx2.AsyncClient:
    return await sign_in(admin)


@pytest.mark.slow
async def test_a_user_and_its_key_from_first_to_last(api: Api, browser: httpx2.AsyncClient) -> None:
    made = await browser.post("/account/keys", data={"external_id": "user-4711"})
    assert made.status_code == 303
    page = made.headers["location"].removesuffix("?said=user")
    assert "user-4711" in (await browser.get("/account/keys?user=user-4711")).text
    assert "No user has this name" in (await browser.get("/account/keys?user=user-47")).text

    new = {"name": "web", "scopes": ["chat"], "expires_at": "2031-01-31"}
    answer = await submit(browser, page, new)
    assert answer.status_code == 201
    (secret,) = KEY.findall(answer.text)
    again = await browser.get("/account/key/made")
    assert (again.status_code, again.headers["location"]) == (303, "/account/keys"), "shown once; a reload makes no key"
    bearer = {"authorization": f"Bearer {secret}"}
    principal = await api.app.state.runtime.directory.authenticate(secret, fresh=True)
    assert principal.scopes == {"chat"}
    shown = (await browser.get(page)).text
    assert secret not in shown
    assert secret[:14] in shown
    assert "ends 1 Feb 2031, 00:00" in shown, "the last day is a day of the operator's, and counts"

    rotated = await submit(browser, f"/account/key/{principal.key_id}/rotate", {"overlap": "3600"})
    (successor,) = KEY.findall(rotated.text)
    assert (await api.http.get("/v1/usage", headers=bearer)).status_code == 403, "still good, and no reader"
    ended = await browser.post(f"/account/key/{principal.key_id}/revoke")
    assert ended.headers["location"] == f"{page}?said=revoked"
    assert (await api.http.get("/v1/usage", headers=bearer)).status_code == 401
    assert (await api.http.get("/v1/usage", headers={"x-api-key": successor})).status_code == 403
    assert "Ended keys (1)" in (await browser.get(page)).text


@pytest.mark.slow
async def test_nobody_climbs_by_a_form(api: Api, admin: Account, browser: httpx2.AsyncClient, sign_in: SignIn) -> None:
    operator = await api.platform_admin()
    for visitor, user_id in ((browser, admin.user_id), (await sign_in(operator), operator.user_id)):
        data = {"name": "web", "scopes": ["chat", "platform:admin"]}
        answer = await submit(visitor, f"/account/keys/{user_id}", data)
        assert answer.status_code == 422
        assert "Choose from the permissions listed here." in answer.text
        assert "platform:admin" not in answer.text
    assert len(await api.books.fetch("SELECT 1 FROM api_keys WHERE tenant_id = $1", operator.tenant_id)) == 1
    assert len(await api.books.fetch("SELECT 1 FROM api_keys WHERE tenant_id = $1", admin.tenant_id)) == 1
    bounded = await sign_in(await api.books.account(scopes=[Scope.TENANT_ADMIN], tenant_id=admin.tenant_id))
    refused = await submit(bounded, f"/account/keys/{admin.user_id}", {"name": "web", "scopes": ["chat"]})
    assert (refused.status_code, "This key lacks permissions" in refused.text) == (422, True)
    assert 'value="chat"' not in refused.text, "what the visitor's key lacks is not offered"
    rotated = await submit(bounded, f"/account/key/{admin.key_id}/rotate", {"overlap": "0"})
    assert (rotated.status_code, KEY.findall(rotated.text)) == (422, [])
    neighbour = await api.books.account(scopes=[Scope.PLATFORM_ADMIN], tenant_id=admin.tenant_id)
    for wish in ("revoke", "rotate"):
        assert (await browser.post(f"/account/key/{neighbour.key_id}/{wish}", data={"overlap": "0"})).status_code == 403
    assert (await api.http.get("/v1/admin/plans", headers=neighbour.headers)).status_code == 200


@pytest.mark.slow
async def test_what_is_typed_wrong_makes_nothing(api: Api, admin: Account, browser: httpx2.AsyncClient) -> None:
    page = f"/account/keys/{admin.user_id}"
    good = {"name": "kept as typed", "scopes": ["chat"]}
    for wrong, reason in (
        ({"name": ""}, "A name has 1 to 200 characters"),
        ({"scopes": []}, "Choose at least one permission"),
        ({"expires_at": "2020-01-01"}, "Choose a day in the future"),
        ({"expires_at": "soon"}, "Choose a day in the future"),
        ({"expires_at": "9999-12-31"}, "Choose a day in the future"),
        ({"models": ["no-such-model"]}, "no-such-model"),
    ):
        answer = await submit(browser, page, good | wrong)
        assert (answer.status_code, reason in answer.text) == (422, True), wrong
        assert ("kept as typed" in answer.text) is ("name" not in wrong)
    for name, status in (("", 422), ("a\nb", 422), ("x" * 201, 422)):
        assert (await submit(browser, "/account/keys", {"external_id": name})).status_code == status
    await browser.post("/account/keys", data={"external_id": "twice"})
    again = await submit(browser, "/account/keys", {"external_id": "twice"})
    assert (again.status_code, "A user with this name exists." in again.text) == (409, True)
    assert len(await api.books.fetch("SELECT 1 FROM api_keys WHERE tenant_id = $1", admin.tenant_id)) == 1
    assert len(await api.books.fetch("SELECT 1 FROM users WHERE tenant_id = $1", admin.tenant_id)) == 2


async def test_ones_own_key_takes_the_session_along(admin: Account, browser: httpx2.AsyncClient) -> None:
    shown = (await browser.get(f"/account/keys/{admin.user_id}")).text
    assert "you are signed in with it" in shown
    assert "revoking it signs you out" in shown
    answer = await submit(browser, f"/account/key/{admin.key_id}/revoke")
    assert (answer.status_code, "is revoked, and your session has ended." in answer.text) == (200, True)
    assert "Sign out" not in answer.text
    assert (await browser.get("/account")).headers["location"].startswith("/sign-in")


async def test_ones_own_key_rotated_at_once(api: Api, admin: Account, browser: httpx2.AsyncClient) -> None:
    answer = await submit(browser, f"/account/key/{admin.key_id}/rotate", {"overlap": "0"})
    (successor,) = KEY.findall(answer.text)
    assert "sign in with the new one" in answer.text
    assert (await browser.get("/account")).status_code == 303
    assert (await api.http.get("/v1/billing/plans", headers={"x-api-key": successor})).status_code == 200


@pytest.mark.slow
async def test_limits_in_a_form(admin: Account, browser: httpx2.AsyncClient) -> None:
    page = f"/account/keys/{admin.user_id}/limits"
    typed = {"requests-minute": "60", "tokens-day": "2,00,000", "spend-period": "$12.5", "concurrency": "4"}
    answer = await browser.post(page, data=typed)
    assert answer.headers["location"] == f"/account/keys/{admin.user_id}?said=limits"
    limits = (await browser.get(f"/v1/admin/users/{admin.user_id}/limits")).json()
    assert {(one["meter"], one["window"]): one["limit"] for one in limits["limits"]} == {
        ("requests", "minute"): 60,
        ("tokens", "day"): 200_000,
        ("spend", "period"): 12_500_000,
    }
    assert (limits["concurrency"], limits["source"]) == (4, "set")
    shown = (await browser.get(f"/account/keys/{admin.user_id}")).text
    for name, value in (("tokens-day", "2,00,000"), ("spend-period", "12.50"), ("requests-day", "")):
        assert f'name="{name}" value="{value}"' in shown
    for wrong in ({"tokens-day": "-1"}, {"spend-day": "0.0000001"}, {"spend-day": "NaN"}, {"requests-day": "9" * 19},
                  {"concurrency": "many"}, {"spend-day": "1e400"}):  # fmt: skip
        refused = await submit(browser, page, wrong)
        assert (refused.status_code, "whole number" in refused.text) == (422, True), wrong
    assert (await browser.get(f"/v1/admin/users/{admin.user_id}/limits")).json() == limits


async def test_a_cookie_that_names_an_unknown_form_is_shown_above(admin: Account, browser: httpx2.AsyncClient) -> None:
    page = f"/account/keys/{admin.user_id}"
    left = {"for": page, "form": "visitor", "fields": {}, "faults": {"": "Of another version."}}
    browser.cookies.set("naka_once", base64.urlsafe_b64encode(zlib.compress(json.dumps(left).encode())).decode())
    shown = await browser.get(page)
    assert (shown.status_code, "Of another version." in shown.text) == (200, True)


@pytest.mark.slow
async def test_an_endpoint_and_its_secret(api: Api, admin: Account, browser: httpx2.AsyncClient) -> None:
    for wrong in ("", "ftp://a.example/", "https://u:p@a.example/", "javascript:alert(1)", "https://a.example/#x"):
        refused = await submit(browser, "/account/alerts/endpoint", {"url": wrong})
        assert (refused.status_code, 'id="url-hint" class="small fault"' in refused.text) == (422, True), wrong
    assert (await browser.get("/v1/billing/alerts/endpoint")).status_code == 404
    made = await submit(browser, "/account/alerts/endpoint", {"url": "https://app.example.com/hooks"})
    (secret,) = SECRET.findall(made.text)
    moved = await browser.post("/account/alerts/endpoint", data={"url": "https://app.example.com/other"})
    assert moved.headers["location"] == "/account/alerts?said=set"
    (another,) = SECRET.findall((await submit(browser, "/account/alerts/endpoint/rotate")).text)
    assert another != secret
    tested = await browser.post("/account/alerts/endpoint/test")
    assert tested.headers["location"] == "/account/alerts?said=tested"
    await api.books.fetch(
        "INSERT INTO alert_deliveries SELECT tenant_id, id, 1, at_ms, 503, NULL, 12 FROM alerts WHERE tenant_id = $1",
        admin.tenant_id,
    )
    shown = (await browser.get("/account/alerts")).text
    assert "whsec_" not in shown
    assert "<strong>503</strong>" in shown
    assert "on its way" in shown
    assert (await browser.post("/account/alerts/endpoint/delete")).headers["location"] == "/account/alerts?said=removed"
    assert (await browser.post("/account/alerts/endpoint/test")).status_code == 404
