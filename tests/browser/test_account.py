"""An admin's first day: subscribes at Razorpay, reads the bill, makes a key and ends it, and hears an alert."""

import http.server
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from billing.gst.rupees import rupees
from tests.browser.conftest import Watch, axe
from tests.browser.stack import Stack
from tests.journeys.shop import ALLOWANCES, BASE_PAISE, RATES, gross, overage

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

USED = 1_800
"""Input tokens: past the plan's allowance of a thousand."""


@pytest.mark.slow
def test_an_admin_runs_the_account(tab: "Page", watch: Watch, stack: Stack) -> None:
    account = stack.customer()
    stack.sign_in(tab, account, "/account")
    tab.get_by_text("This account has no plan").wait_for()

    subscribes(tab)
    stack.chat(account, input_tokens=USED, words=5)
    stack.wait_until(lambda: stack.call("GET", "/v1/billing/upcoming", account)["taxable_paise"] > 0, "the usage")
    tab.get_by_role("link", name="Overview").click()
    sees_what_was_used(tab)
    assert axe(tab) == []

    reads_the_bill(tab)
    makes_a_key_and_ends_it(tab, stack)
    with receiver() as (url, received):
        hears_an_alert(tab, stack, url)
        assert any(b'"alerts.test"' in body for body in received)  # beside the alert of what was used
    tab.get_by_role("link", name="Billing profile").click()
    assert tab.get_by_label("Legal name").input_value() == "Nimbus Tools"
    assert axe(tab) == []
    assert watch.console == []
    assert watch.hosts == {stack.url.removeprefix("http://")}


def subscribes(tab: "Page") -> None:
    """At Razorpay's page in a tab of its own; ours notices by itself."""
    tab.get_by_role("link", name="Choose a plan").click()
    tab.get_by_text(f"{rupees(gross(BASE_PAISE)).removesuffix('.00')} with GST").wait_for()
    tab.get_by_role("button", name="Subscribe to Team").click()
    tab.get_by_text("One step left").wait_for()
    assert axe(tab) == []
    with tab.expect_popup() as opened:
        tab.get_by_role("link", name="Continue at Razorpay").click()
    razorpay = opened.value
    razorpay.get_by_label("UPI").check()
    razorpay.get_by_role("button", name="Pay").click()
    razorpay.get_by_text("Thank you").wait_for()
    razorpay.close()
    tab.get_by_text("The subscription is authorised.").wait_for(timeout=20_000)
    tab.get_by_text("active", exact=True).wait_for()


def sees_what_was_used(tab: "Page") -> None:
    """Past the allowance, and what that costs by the story's own arithmetic."""
    allowance, rate = ALLOWANCES["input_tokens"], RATES["input_tokens"]
    past = (USED - allowance) * rate // 1_000_000
    tab.get_by_text(f"{USED - allowance} overage, {rupees(past).removesuffix('.00')} before GST").wait_for()
    tab.get_by_role("img", name=f"1,800 of 1,000 input tokens, {USED * 100 // allowance} %").wait_for()
    total = gross(overage(Counter(input_tokens=USED))) + gross(BASE_PAISE)
    tab.get_by_role("row", name=re.compile(r"Total so far")).get_by_text(rupees(total)).wait_for()


def reads_the_bill(tab: "Page") -> None:
    """Paid; as a page, and as a PDF."""
    tab.get_by_role("link", name="Bills", exact=True).click()
    row = tab.get_by_role("row", name=re.compile(r"paid"))
    row.get_by_text("paid").wait_for()
    assert axe(tab) == []
    row.get_by_role("link").click()
    number = tab.get_by_role("heading", level=1).inner_text().removeprefix("Bill ")
    tab.get_by_role("heading", name="Paid.").wait_for()
    assert axe(tab) == []
    with tab.expect_download() as downloading:
        tab.get_by_role("link", name="Download PDF").click()
    pdf = Path(downloading.value.path()).read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 5_000
    tab.get_by_role("link", name="View", exact=True).click()
    tab.get_by_text(number).first.wait_for()
    tab.go_back()


def makes_a_key_and_ends_it(tab: "Page", stack: Stack) -> None:
    """Shown once."""
    tab.get_by_role("link", name="Users and keys").click()
    assert axe(tab) == []
    tab.get_by_label("Name", exact=True).fill("batch importer")
    tab.get_by_role("button", name="Create user").click()
    tab.get_by_text("User created.").wait_for()
    tab.get_by_label("Name", exact=True).fill("importer on host 7")
    tab.get_by_label("Last day").fill("2039-01-31")
    tab.get_by_role("button", name="Create key").click()
    key = tab.locator("#secret").inner_text()
    assert re.fullmatch(r"nk_test_\w{40,}", key)
    assert axe(tab) == []
    tab.get_by_role("link", name="Done").click()
    tab.get_by_text("importer on host 7").first.wait_for()
    assert key not in tab.content()
    tab.get_by_text("Revoke", exact=True).click()
    tab.get_by_role("button", name="Revoke importer on host 7").click()
    tab.get_by_text("The key is revoked.").wait_for()
    tab.get_by_text("Ended keys (1)").click()
    tab.get_by_role("cell", name=re.compile("revoked$")).wait_for()
    assert axe(tab) == []
    assert stack.url in tab.url


def hears_an_alert(tab: "Page", stack: Stack, url: str) -> None:
    """A test message, and its answer in the log."""
    tab.get_by_role("link", name="Alerts", exact=True).click()
    tab.get_by_label("Address").fill(url)
    tab.get_by_role("button", name="Save address").click()
    assert tab.locator("#secret").inner_text().startswith("whsec_")
    assert axe(tab) == []
    tab.get_by_role("link", name="Done").click()
    tab.get_by_role("button", name="Send test").click()
    row = tab.get_by_role("row", name=re.compile(r"^Test message"))
    row.wait_for()

    def delivered() -> bool:
        tab.reload()
        return row.get_by_text("204").is_visible() and row.get_by_text("delivered").is_visible()

    stack.wait_until(delivered, "the delivery")


@contextmanager
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """An endpoint of the tenant's: what came, and where it stands."""
    received: list[bytes] = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hooks", received
        server.shutdown()
