"""The operator sees that an event is parked, replays it once its cause is mended, and looks around."""

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Watch, axe
from tests.browser.stack import Stack
from tests.harness import Account, Books

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture
def parked(stack: Stack) -> str:
    """An event that failed until it was parked, of a subscription that is in order again by now; its id."""
    customer = stack.customer()
    view = stack.call("POST", "/v1/billing/subscription", customer, plan="team")
    stack.razorpay.authorise(view["waiting"]["checkout"]["subscription_id"], "upi")
    stack.wait_until(lambda: len(applied(stack, customer)) > 1, "the events of the subscription")
    first, second, *_ = applied(stack, customer)
    stack.books(lambda books: worn_out(books, customer, first))
    stack.call("POST", f"/v1/admin/webhooks/{second}/replay", stack.operator)
    stack.wait_until(lambda: state_of(stack, first) == "parked", "the event to be parked")
    stack.books(lambda books: plan(books, customer, "team"))
    return first


async def worn_out(books: Books, account: Account, event: str) -> None:
    """As if it had failed as often as is tried, since its subscription names a plan that is not there."""
    await plan(books, account, "nowhere")
    await books.fetch("UPDATE webhook_events SET state = 'received', tries = 6, due_ms = 0 WHERE event_id = $1", event)


async def plan(books: Books, account: Account, code: str) -> None:
    await books.fetch("UPDATE subscriptions SET plan_code = $2 WHERE tenant_id = $1", account.tenant_id, code)


def applied(stack: Stack, account: Account) -> list[str]:
    """The tenant's events that were worked off."""
    query = "SELECT event_id FROM webhook_events WHERE tenant_id = $1 AND state = 'applied' ORDER BY event_id"
    return [row["event_id"] for row in stack.books(lambda books: books.fetch(query, account.tenant_id))]


def state_of(stack: Stack, event: str) -> str:
    found: dict[str, Any] = stack.call("GET", f"/v1/admin/webhooks/{event}", stack.operator)
    return str(found["state"])


def test_the_operator_replays_a_parked_webhook(tab: "Page", watch: Watch, stack: Stack, parked: str) -> None:
    stack.sign_in(tab, stack.operator, "/operator")
    tab.get_by_role("link", name="webhooks parked").click()
    tab.get_by_role("row", name=parked).get_by_text("parked").wait_for()
    assert axe(tab) == []
    tab.get_by_role("row", name=parked).get_by_role("link").first.click()
    tab.get_by_role("heading", name="Body").wait_for()
    assert axe(tab) == []

    tab.get_by_text("Replay", exact=True).first.click()
    tab.get_by_role("button", name="Replay").click()
    tab.get_by_role("status").get_by_text("processed again").wait_for()
    stack.wait_until(lambda: state_of(stack, parked) == "applied", "the event to be applied")
    tab.get_by_role("link", name="Check again").click()
    tab.get_by_text("applied", exact=True).wait_for()

    tab.get_by_role("link", name="Findings").click()
    row = tab.get_by_role("row", name=parked)
    row.locator("summary").click()
    row.get_by_label("Reason").fill("its plan is there again")
    row.get_by_role("button", name="Close").click()
    tab.get_by_text("The finding is closed.").wait_for()
    assert tab.get_by_role("row", name=parked).count() == 0

    tab.get_by_role("link", name="Audit log").click()
    tab.get_by_role("row", name="finding close").first.get_by_text(parked).wait_for()
    tab.get_by_role("row", name="webhook replay").first.get_by_text(f"webhook:{parked}").wait_for()
    assert watch.console == []
    assert watch.hosts == {stack.url.removeprefix("http://")}
