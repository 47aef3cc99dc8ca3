"""The page of budgets: what is used, the form that sets one, and its refusals; whose it is."""

import httpx2
import pytest

from core.settings import Settings
from tests.api.conftest import Api
from tests.harness import Account
from tests.pages.conftest import SignIn, submit

PAGE = "/account/budgets"
FORM = {"key": "feature", "value": "search", "tokens-day": "1,500"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A tenant does not see the provider's cost."""
    return settings.model_copy(update={"show_provider_cost": False})


@pytest.fixture
async def admin(api: Api) -> Account:
    admin = await api.tenant_admin()
    await api.books.fetch("INSERT INTO tag_keys (tenant_id, key) VALUES ($1, 'feature')", admin.tenant_id)
    return admin


@pytest.fixture
async def browser(admin: Account, sign_in: SignIn) -> httpx2.AsyncClient:
    return await sign_in(admin)


async def test_a_budget_is_set_shown_and_removed(api: Api, admin: Account, browser: httpx2.AsyncClient) -> None:
    assert "No budgets yet." in (await browser.get(PAGE)).text
    made = await browser.post(PAGE, data=FORM)
    assert made.headers["location"] == f"{PAGE}?said=set"
    shown = (await browser.get(made.headers["location"])).text
    assert "Budget saved." in shown
    assert '<span class="mono">feature=search</span>' in shown
    assert "1,500 tokens a day" in shown
    assert 'name="spend-day"' not in shown, "a tenant does not see the provider's cost"
    own = (await api.http.get("/v1/limits", headers=admin.headers | {"Naka-Tags": "feature=search"})).json()
    assert own["windows"][-1]["limit"] == 1_500
    removed = await browser.post(f"{PAGE}/remove", data={"key": "feature", "value": "search"})
    assert removed.headers["location"] == f"{PAGE}?said=removed"
    assert "No budgets yet." in (await browser.get(PAGE)).text
    assert (await browser.post(f"{PAGE}/remove", data={"key": "feature", "value": "search"})).status_code == 404


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens-day": ""}, "Enter at least one limit."),
        ({"tokens-day": "many"}, "Enter a whole number from 0"),
        ({"value": " "}, "A value has 1 to 200 characters, without line breaks."),
        ({"key": "team"}, "declare the key `team` first"),
        ({"key": "Team"}, "Choose one of the declared tag keys."),
    ],
)
async def test_a_wrong_form_is_shown_again(
    api: Api, admin: Account, browser: httpx2.AsyncClient, change: dict[str, str], says: str
) -> None:
    answer = await submit(browser, PAGE, FORM | change)
    assert answer.status_code == 422
    assert says.replace("`", "").lower() in answer.text.replace("`", "").lower()
    assert "<script" not in answer.text.split("<main")[1]
    assert await api.books.fetch("SELECT FROM tag_limits WHERE tenant_id = $1", admin.tenant_id) == []


async def test_without_a_declared_key_there_is_no_form(api: Api, sign_in: SignIn) -> None:
    admin = await api.tenant_admin()
    browser = await sign_in(admin)
    assert "<option>conversation</option>" in (await browser.get(PAGE)).text, "declared from the start"
    await browser.post("/account/tags/remove", data={"key": "conversation"})
    assert '<a href="/account/tags">tag</a> first' in (await browser.get(PAGE)).text


async def test_a_key_with_budgets_cannot_be_removed(api: Api, admin: Account, browser: httpx2.AsyncClient) -> None:
    await browser.post(PAGE, data=FORM)
    refused = await submit(browser, "/account/tags/remove", {"key": "feature"})
    assert refused.status_code == 409
    assert "Tags with the key feature have budgets." in refused.text
    await browser.post(f"{PAGE}/remove", data={"key": "feature", "value": "search"})
    assert (await browser.post("/account/tags/remove", data={"key": "feature"})).status_code == 303
    (row,) = await api.books.fetch("SELECT removed_at FROM tag_keys WHERE tenant_id = $1", admin.tenant_id)
    assert row["removed_at"] is not None


async def test_the_operator_sees_what_was_spent_and_sets_it_in_dollars(api: Api, sign_in: SignIn) -> None:
    operator = await api.platform_admin()
    await api.books.fetch("INSERT INTO tag_keys (tenant_id, key) VALUES ($1, 'feature')", operator.tenant_id)
    browser = await sign_in(operator)
    await browser.post(PAGE, data={"key": "feature", "value": "<b>", "spend-period": "$1.50"})
    shown = (await browser.get(PAGE)).text
    assert "feature=&lt;b&gt;" in shown
    assert "$1.50 of model cost a billing period" in shown
