"""Users by the account's pages: disabled and enabled, and the settings of users that a backend's requests name."""

import httpx2
import pytest

from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.harness import Account
from tests.pages.conftest import SAME_ORIGIN, SignIn, submit


@pytest.fixture
async def admin(api: Api) -> Account:
    return await api.tenant_admin()


@pytest.fixture
async def browser(admin: Account, sign_in: SignIn) -> httpx2.AsyncClient:
    return await sign_in(admin)


async def test_a_user_is_disabled_and_enabled_by_a_button(
    api: Api, admin: Account, browser: httpx2.AsyncClient, sign_in: SignIn
) -> None:
    person = await api.books.account(tenant_id=admin.tenant_id)
    theirs, page = await sign_in(person), f"/account/keys/{person.user_id}"
    assert "Disable user" in (await browser.get(page)).text

    disabled = await submit(browser, f"{page}/state", {"state": "disabled"})
    assert "The user is disabled. Its requests are refused." in disabled.text
    assert "Enable user" in disabled.text
    assert "Disabled" in (await browser.get("/account/keys")).text
    assert (await api.http.get("/v1/usage", headers=person.headers)).json()["code"] == "user_disabled"
    assert (await theirs.get("/")).status_code == 403, "a session that it had"
    again = await api.http.post("/sign-in", data={"key": person.key}, headers=SAME_ORIGIN)
    assert "naka_session" not in again.headers.get("set-cookie", "")
    shown = await api.http.get(again.headers["location"], headers={"cookie": again.headers["set-cookie"].split(";")[0]})
    assert "This user is disabled." in shown.text

    enabled = await submit(browser, f"{page}/state", {"state": "enabled"})
    assert "The user is enabled." in enabled.text
    assert (await api.http.get("/v1/usage", headers=person.headers)).status_code == 200
    assert (await theirs.get("/")).status_code == 200
    assert (await api.audit(admin.tenant_id))[-2:] == ["user.disable", "user.enable"]


async def test_an_erased_user_has_no_button_and_stays_disabled(
    api: Api, admin: Account, browser: httpx2.AsyncClient
) -> None:
    person = await api.books.account(tenant_id=admin.tenant_id)
    await api.call(admin, "POST", f"/users/{person.user_id}/erase", expect=200)
    page = f"/account/keys/{person.user_id}"
    assert "Disable user" not in (await browser.get(page)).text
    assert "this user was erased" in (await submit(browser, f"{page}/state", {"state": "enabled"})).text.lower()


async def test_an_owner_of_the_account_is_not_disabled_on_its_page(
    api: Api, admin: Account, browser: httpx2.AsyncClient
) -> None:
    scopes = [Scope.USAGE_READ, Scope.TENANT_ADMIN, Scope.TENANT_MEMBERS]
    owner = await api.books.account(tenant_id=admin.tenant_id, scopes=scopes)
    page = f"/account/keys/{owner.user_id}"
    shown = (await browser.get(page)).text
    assert "Disable user" not in shown
    assert "an owner removes the member" in shown
    assert (await browser.post(f"{page}/state", data={"state": "disabled"})).status_code == 403


@pytest.mark.slow
async def test_new_users_and_their_limits_in_forms(admin: Account, browser: httpx2.AsyncClient) -> None:
    page = "/account/user-defaults"
    assert "New users and their limits" in (await browser.get("/account/keys")).text
    shown = (await browser.get(page)).text
    assert 'name="makes_users" value="yes" checked' in shown
    assert 'value="600"' in shown
    path = f"/v1/admin/tenants/{admin.tenant_id}"

    saved = await submit(browser, page, {"new_users_per_minute": "1,200"})
    assert "Saved." in saved.text
    known = {"makes_users": False, "new_users_per_minute": 1200}
    assert (await browser.get(f"{path}/new-users")).json() == known
    refused = await submit(browser, page, {"makes_users": "yes", "new_users_per_minute": "many"})
    assert refused.status_code == 422
    assert "Enter a whole number from 0 to 100,000." in refused.text
    assert (await browser.get(f"{path}/new-users")).json() == known

    await submit(browser, f"{page}/limits", {"requests-day": "1,000", "concurrency": "3"})
    limits = (await browser.get(f"{path}/user-limits")).json()
    assert limits == {
        "limits": [{"meter": "requests", "window": "day", "limit": 1000}],
        "concurrency": 3,
        "source": "set",
    }
    assert 'value="1,000"' in (await browser.get(page)).text
    assert "Set for all users of the account." in (await browser.get(f"/account/keys/{admin.user_id}")).text
    wrong = await submit(browser, f"{page}/limits", {"requests-day": "few"})
    assert (wrong.status_code, 'value="few"' in wrong.text) == (422, True)
    assert (await browser.get(f"{path}/user-limits")).json() == limits
    assert (await browser.get(f"{path}/limits")).json()["limits"] == [], "of the tenant as a whole: unchanged"
