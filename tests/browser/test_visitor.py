"""A first-time visitor chats, reaches the end of what is free, subscribes by UPI, and goes on."""

import re
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from tests.browser.conftest import Watch, axe
from tests.browser.stack import Stack
from tests.harness import Account, scripted
from tests.journeys.shop import CUSTOMER, SCOPES

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

FREE_TOKENS = 3_000
FREE = {
    "code": "free",
    "name": "Free",
    "base_paise": 0,
    "meters": [{"meter": "output_tokens", "allowance": FREE_TOKENS, "rate_paise": 0}],
    "past_allowance": "block",
}


@pytest.fixture
def visitor(stack: Stack) -> Account:
    """Somebody on the plan that costs nothing, whose key may chat and subscribe."""
    stack.call("POST", "/v1/admin/plans", stack.operator, **FREE)
    tenant = stack.call(
        "POST", "/v1/admin/tenants", stack.operator, slug=f"v-{uuid4().hex[:12]}", name="Visitor Ltd", plan="free"
    )
    user = stack.call("POST", f"/v1/admin/tenants/{tenant['id']}/users", stack.operator, external_id="vera")
    key: dict[str, Any] = stack.call(
        "POST", f"/v1/admin/users/{user['id']}/keys", stack.operator, name="web", scopes=[*SCOPES]
    )
    made = Account(UUID(tenant["id"]), UUID(user["id"]), UUID(key["id"]), key["key"])
    stack.call("PUT", "/v1/billing/profile", made, **CUSTOMER)
    return made


def test_a_visitor_chats_reaches_the_limit_subscribes_and_goes_on(
    tab: "Page", watch: Watch, stack: Stack, visitor: Account
) -> None:
    stack.sign_in(tab, visitor)
    ask(tab, scripted("What is a naka?", text="A **toll post**."))
    tab.locator(".answer strong", has_text="toll post").wait_for()
    said_what_was_used(tab, 1)  # two messages at once could not be told apart
    ask(tab, scripted("All of it, please.", output_tokens=FREE_TOKENS))
    tab.locator('article[data-state="ended"]').nth(1).wait_for()
    said_what_was_used(tab, 2)

    ask(tab, "And now?")
    tab.get_by_role("alert").get_by_text("You have reached your limit").wait_for()
    assert axe(tab) == []
    tab.get_by_role("link", name="See the plans").click()
    tab.get_by_role("button", name="Subscribe to Team").click()
    with tab.expect_popup() as opened:
        tab.get_by_role("link", name="Continue at Razorpay").click()
    razorpay = opened.value
    razorpay.get_by_label("UPI").check()
    razorpay.get_by_role("button", name="Pay").click()
    razorpay.get_by_text("Thank you").wait_for()
    razorpay.close()
    tab.get_by_text("The subscription is authorised.").wait_for(timeout=20_000)
    tab.get_by_text("active", exact=True).wait_for()

    tab.get_by_role("link", name="Chat").click()
    tab.locator("article").nth(1).wait_for()
    assert tab.locator("article").count() == 2, "the talk is still there"
    assert tab.get_by_label("Your message").input_value() == "And now?"
    tab.get_by_role("button", name="Send").click()
    tab.locator('article[data-state="ended"]').nth(2).wait_for()
    said_what_was_used(tab, 3)
    assert [line for line in watch.console if "429" not in line] == []
    assert watch.hosts == {stack.url.removeprefix("http://")}


def ask(page: "Page", message: str) -> None:
    page.get_by_label("Your message").fill(message)
    page.get_by_role("button", name="Send").click()


def said_what_was_used(page: "Page", count: int) -> None:
    """Returns once so many answers have it under them."""
    page.locator(".meta", has_text=re.compile("This message used")).nth(count - 1).wait_for()
