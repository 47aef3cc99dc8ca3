"""A walk as a tenant that is overdue, one that just paid, one that is halted and one at its limit: what each page says.

The walk has a stack of its own, because it moves the clock by months. `SCREENSHOTS=folder` keeps a picture of each
page and the words of its account in `walk.md`, for somebody to read.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from billing.gst.rupees import rupees
from tests import servers
from tests.browser.conftest import Watch, axe
from tests.browser.stack import Stack, running_stack
from tests.harness import Account, scripted
from tests.journeys.shop import BASE_PAISE, RATES, gross

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

FOLDER = os.environ.get("SCREENSHOTS")
POOR = "insufficient_funds"
ACCOUNT_PAGES = {
    "account": "/account",
    "plan": "/account/plan",
    "bills": "/account/bills",
    "keys": "/account/keys",
    "alerts": "/account/alerts",
    "reports": "/reports",
    "chat": "/",
}
FREE_TOKENS = 500
"""Output tokens that the plan Free includes: what an overdue subscriber of Pro still has."""


@pytest.fixture(scope="module")
def stack(
    shared_servers: servers.Servers, database_template: str, redis_url: str, run_folder: Path, worker: str
) -> Iterator[Stack]:
    """A stack whose clock only this walk moves, with the plans Free and Pro beside Team."""
    folder = run_folder / f"standing-{worker}"
    with running_stack(shared_servers, database_template, redis_url, folder, "http://localhost:1") as made:
        output = {"meter": "output_tokens", "allowance": FREE_TOKENS, "rate_paise": 0}
        free = {"code": "free", "name": "Free", "base_paise": 0, "meters": [output], "past_allowance": "block"}
        made.call("POST", "/v1/admin/plans", made.operator, **free)
        pro = {"code": "pro", "name": "Pro", "base_paise": BASE_PAISE, "past_allowance": "bill", "when_unpaid": "free"}
        meters = [output | {"rate_paise": RATES["output_tokens"] * 100}]
        made.call("POST", "/v1/admin/plans", made.operator, **pro, meters=meters, ceiling_paise=1_000_000)
        yield made


@pytest.mark.slow
def test_overdue_then_paid(tab: "Page", watch: Watch, stack: Stack) -> None:
    account = overdue(stack)
    owed = owed_by(stack, account)
    stack.sign_in(tab, account, "/account")
    pay = f"Pay {rupees(owed).removesuffix('.00')}"
    for name, path in ACCOUNT_PAGES.items():
        tab.goto(f"{stack.url}{path}")
        banner(tab).get_by_text(re.compile(r"for usage is overdue since \d+ \w+ \d{4}\.")).wait_for()
        text = banner(tab).inner_text()
        assert "Until it is paid, the limits of Free apply. The limits of Pro return as soon as it is paid." in text
        link = banner(tab).get_by_role("link", name=pay)
        assert (link.get_attribute("target"), "/rzp/" in str(link.get_attribute("href"))) == ("_blank", True), name
        assert tab.locator(".tag", has_text=re.compile("^active$")).count() == 0, f"{name} says that all is well"
        assert axe(tab) == [], name
        look(tab, f"overdue-{name}")
    tab.set_viewport_size({"width": 375, "height": 720})
    for name in ("chat", "account"):
        tab.goto(f"{stack.url}{ACCOUNT_PAGES[name]}")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert tab.get_by_role("button", name="Send").is_visible() or name != "chat"
        look(tab, f"overdue-{name}-phone")
    tab.set_viewport_size({"width": 1100, "height": 760})
    refused_in_chat(tab, account, pay)
    look(tab, "overdue-chat-refused")

    tab.goto(f"{stack.url}/account/bills")
    row = tab.get_by_role("row", name=re.compile("Overage"))
    row.get_by_text("overdue").wait_for()
    stack.razorpay.set_webhook(enabled=False)  # the page hears of the payment by itself
    try:
        pays(tab, banner(tab).get_by_role("link", name=pay))
        row.get_by_text("paid").wait_for()
    finally:
        stack.razorpay.set_webhook(enabled=True)
    assert banner(tab).count() == 0
    assert "overdue" not in tab.locator("body").inner_text()
    look(tab, "paid-bills")
    for name in ("account", "plan", "chat"):
        tab.goto(f"{stack.url}{ACCOUNT_PAGES[name]}")
        assert not banner(tab).is_visible(), name
        look(tab, f"paid-{name}")
    says(tab, "hello again")
    tab.locator(".meta", has_text="This message used").last.wait_for()
    assert stack.call("GET", "/v1/billing/status", account)["state"] == "active"
    assert [line for line in watch.console if "429" not in line and "402" not in line] == []


def says_now(tab: "Page") -> str:
    """The page's text without its list of alerts, which tells what was true when each was sent."""
    without = """() => {
        const page = document.body.cloneNode(true);
        page.querySelectorAll("[aria-labelledby=alerts], [aria-labelledby=list]").forEach(each => each.remove());
        return page.textContent;
    }"""
    return str(tab.evaluate(without))


@pytest.mark.slow
def test_halted_then_paid(tab: "Page", stack: Stack) -> None:
    account = subscriber(stack, "team", "card_domestic")
    subscription = stack.call("GET", "/v1/billing/subscription", account)["current"]
    razorpay_id = subscription_id(stack, account)
    stack.razorpay.outcomes(razorpay_id, [POOR] * 4)
    stack.razorpay.advance(days=31.2, drain=True)
    stack.wait_until(lambda: status(stack, account)["state"] == "overdue", "the first failed debit")
    stack.sign_in(tab, account, "/account")
    banner(tab).get_by_text("Razorpay tries again on").wait_for()
    banner(tab).get_by_text("Requests continue until").wait_for()
    look(tab, "pending-account")

    stack.razorpay.advance(days=4, drain=True)
    stack.wait_until(lambda: status(stack, account)["state"] == "halted", "the last failed debit")
    stack.wait_until(lambda: status(stack, account)["access"] == "refused", "the end of the grace")
    pay = f"Pay {rupees(subscription['amount_paise']).removesuffix('.00')}"
    for name, path in ACCOUNT_PAGES.items():
        tab.goto(f"{stack.url}{path}")
        banner(tab).get_by_text("Razorpay could not collect it and has stopped trying.").wait_for()
        text = banner(tab).inner_text()
        assert "Requests are refused. They continue as soon as it is paid." in text
        said = says_now(tab)
        assert "again by itself" not in said, name
        assert "tries again" not in said, name
        look(tab, f"halted-{name}")
    refused_in_chat(tab, account, pay)
    look(tab, "halted-chat-refused")
    tab.goto(f"{stack.url}/account")
    pays(tab, banner(tab).get_by_role("link", name=pay))
    banner(tab).wait_for(state="detached")
    look(tab, "halted-then-paid-account")
    assert status(stack, account)["state"] == "active"
    assert gross(BASE_PAISE) == subscription["amount_paise"]


def test_at_its_limit(tab: "Page", stack: Stack) -> None:
    account = stack.customer()
    stack.call("PUT", f"/v1/admin/tenants/{account.tenant_id}/plan", stack.operator, code="free")
    stack.sign_in(tab, account, "/")
    says(tab, scripted("Tell me all.", words=FREE_TOKENS + 50))
    tab.locator(".cut", has_text="This answer was cut: it reached the end of your limit.").wait_for()
    assert tab.get_by_role("button", name="Continue").is_visible()
    tab.locator("#left", has_text=f"0 of {FREE_TOKENS} output tokens left this period").wait_for()
    look(tab, "limit-chat-cut")
    tab.get_by_role("button", name="Continue").click()
    tab.get_by_role("alert").get_by_text("You have reached your limit.").wait_for()
    tab.get_by_role("timer").get_by_text("Ready in").wait_for()
    assert not banner(tab).is_visible(), "nothing is owed"
    look(tab, "limit-chat-refused")
    tab.goto(f"{stack.url}/account")
    assert banner(tab).count() == 0
    look(tab, "limit-account")


@pytest.mark.slow
def test_the_operator_sees_who_is_late(tab: "Page", stack: Stack) -> None:
    account = overdue(stack)
    stack.sign_in(tab, stack.operator, "/operator")
    tab.goto(f"{stack.url}/")
    assert tab.url == f"{stack.url}/operator", "a key that cannot chat is led to where it can go"
    row = tab.get_by_role("region", name="Overdue and halted tenants").get_by_role("row")
    row.get_by_text(rupees(owed_by(stack, account))).first.wait_for()
    row.get_by_text("Until it is paid, the limits of Free apply.").first.wait_for()
    tab.get_by_text("billed less provider cost").wait_for()
    assert axe(tab) == []
    look(tab, "operator")
    tab.goto(f"{stack.url}/operator/nothing-here")
    tab.get_by_role("heading", name="Page not found").wait_for()
    assert tab.get_by_role("navigation", name="Main").get_by_role("link", name="Operator").is_visible()
    look(tab, "operator-404")


def overdue(stack: Stack) -> Account:
    """A subscriber of Pro on top of Free, whose bill for usage is overdue and who has used up what Free includes."""
    account = subscriber(stack, "pro", "upi", own="free")
    stack.chat(account, words=FREE_TOKENS + 400)
    stack.razorpay.advance(days=31.2, drain=True)
    stack.call("POST", f"/v1/admin/tenants/{account.tenant_id}/close", stack.operator)
    stack.wait_until(lambda: status(stack, account)["due_paise"] > 0, "the bill")
    stack.chat(account, words=FREE_TOKENS + 20)
    bills = "/v1/billing/bills?state=open"
    stack.wait_until(lambda: stack.call("GET", bills, account)["items"][0]["pay_url"] is not None, "the link")
    stack.razorpay.advance(days=8, drain=True)
    stack.wait_until(lambda: status(stack, account)["access"] == "reduced", "the due date")
    return account


def subscriber(stack: Stack, plan: str, method: str, *, own: str | None = None) -> Account:
    account = stack.customer()
    if own is not None:
        stack.call("PUT", f"/v1/admin/tenants/{account.tenant_id}/plan", stack.operator, code=own)
    waiting = stack.call("POST", "/v1/billing/subscription", account, plan=plan)["waiting"]
    stack.razorpay.authorise(waiting["checkout"]["subscription_id"], method)
    stack.wait_until(lambda: status(stack, account)["state"] == "active", "the subscription")
    return account


def status(stack: Stack, account: Account) -> dict[str, Any]:
    return dict(stack.call("GET", "/v1/billing/status", account))


def subscription_id(stack: Stack, account: Account) -> str:
    query = "SELECT razorpay_id FROM subscriptions WHERE tenant_id = $1"
    (row,) = stack.books(lambda books: books.fetch(query, account.tenant_id))
    return str(row["razorpay_id"])


def owed_by(stack: Stack, account: Account) -> int:
    return int(status(stack, account)["overdue_paise"])


def banner(tab: "Page") -> "Locator":
    return tab.get_by_role("complementary", name="Account status")


def says(tab: "Page", message: str) -> None:
    tab.get_by_label("Your message").fill(message)
    tab.get_by_role("button", name="Send").click()


def refused_in_chat(tab: "Page", account: Account, pay: str) -> None:
    """Paying is what helps: no countdown, no tokens left, and the message is kept."""
    tab.goto(tab.url.split("/", 3)[0] + "//" + tab.url.split("/", 3)[2] + "/")
    says(tab, "Are you there?")
    alert = tab.locator("#notice")
    alert.get_by_text("overdue since").wait_for()
    assert alert.get_by_role("link", name=pay).is_visible(), account.tenant_id
    assert tab.locator("#timer").text_content() == ""
    assert tab.locator("#left").text_content() == ""
    assert tab.get_by_label("Your message").input_value() == "Are you there?"


def pays(tab: "Page", link: "Locator") -> None:
    """Pays on Razorpay's page, in a tab of its own."""
    with tab.expect_popup() as opened:
        link.click()
    razorpay = opened.value
    razorpay.get_by_label("UPI").check()
    razorpay.get_by_role("button", name="Pay").click()
    razorpay.get_by_text("Thank you").wait_for()
    razorpay.close()


def look(tab: "Page", name: str) -> None:
    """Keeps a picture of the page and its words, if asked to."""
    if FOLDER is None:
        return
    tab.screenshot(path=Path(FOLDER) / f"walk_{name}.png", full_page="chat" not in name)
    with (Path(FOLDER) / "walk.md").open("a") as words:
        lines = [line.strip() for line in tab.locator("body").inner_text().splitlines() if line.strip()]
        words.write(f"## {name}\n\n{chr(10).join(f'> {line}' for line in lines)}\n\n")
