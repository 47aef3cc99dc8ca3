"""An admin's story: who used most yesterday, the same in a file, and what runs right now."""

import csv
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from core.clock import follow_test_clock, now_ms, stop_following
from core.figures import grouped, usd
from metering.counts import LATER_COLUMNS, REPORTED_COLUMNS, TOKEN_COLUMNS
from metering.journal.records import ERRORS
from tests.browser.conftest import Watch, axe
from tests.browser.stack import Stack
from tests.metering.rows import KOLKATA
from tests.pages.reported import DAY_MS, Used, drawn, settle

if TYPE_CHECKING:
    from playwright.sync_api import Page

ON_A_PHONE = """() => {
  const shown = [...document.querySelectorAll(".chart svg")].filter((svg) => svg.getBoundingClientRect().width);
  const scale = shown[0].getBoundingClientRect().width / shown[0].viewBox.baseVal.width;
  const size = parseFloat(getComputedStyle(shown[0].querySelector("text")).fontSize);
  return [scale * size, document.documentElement.scrollWidth];
}"""
"""How large the chart's text is as it is seen, and how wide the page."""
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture
def _in_the_stacks_time(stack: Stack) -> Iterator[None]:
    """Other stories of the stack may have turned its clock."""
    assert stack.razorpay.clock_file is not None
    follow_test_clock(stack.razorpay.clock_file)
    yield
    stop_following()


@pytest.mark.slow
@pytest.mark.usefixtures("_in_the_stacks_time")
def test_the_heaviest_user_in_three_clicks_a_file_that_adds_up_and_the_present(
    tab: "Page", watch: Watch, stack: Stack
) -> None:
    admin = stack.account()
    found = drawn(9, [stack.account(tenant_of=admin) for _ in range(5)], days=3, last=1, each=30)
    stack.books(lambda books: settle(books, found))
    yesterday = KOLKATA.date_of(now_ms() - DAY_MS)
    theirs = [each for each in found if KOLKATA.date_of(each.at_ms) == yesterday]
    tokens: Counter[str] = Counter()
    for each in theirs:
        tokens[str(each.account.user_id)] += sum(getattr(each.settlement.usage, name) for name in TOKEN_COLUMNS)
    (heaviest, most), *_ = tokens.most_common()
    stack.sign_in(tab, admin)

    tab.get_by_role("navigation", name="Main").get_by_role("link", name="Reports").click()
    tab.get_by_role("link", name="Yesterday").click()
    bar = tab.locator(".chart a:visible").first
    assert f": {grouped(most)} tokens (" in (bar.get_attribute("aria-label") or "")
    assert axe(tab) == []
    it_fits_a_phone(tab)
    assert the_file_says_what_is_drawn(tab, theirs) == sum(tokens.values())
    bar.click()
    tab.wait_for_url("**/reports/requests?*")
    assert f"user_id={heaviest}" in tab.url
    links = tab.locator("tbody th a")
    assert links.count() == sum(str(each.account.user_id) == heaviest for each in theirs)
    assert axe(tab) == []
    links.first.click()
    tab.get_by_role("heading", name="Counts").wait_for()
    assert axe(tab) == []

    tab.get_by_role("link", name="Live").click()
    tab.get_by_text("Live", exact=True).and_(tab.locator(".state.on")).wait_for()
    with stack.asking(admin, "hello", words=9, stall_after=3):  # as long as it takes until it is seen
        tab.locator("#running").get_by_text("1", exact=True).wait_for()
    tab.locator("#settled").get_by_text("1", exact=True).wait_for()
    assert tab.locator("#tokens").inner_text() != "0"
    assert tab.locator(".spark .line[d]").count() == 2
    assert axe(tab) == []
    assert watch.hosts == {urlsplit(stack.url).netloc}
    assert watch.console == []


def it_fits_a_phone(tab: "Page") -> None:
    before = tab.viewport_size
    assert before is not None
    tab.set_viewport_size({"width": 375, "height": 760})
    text_px, page_px = tab.evaluate(ON_A_PHONE)
    assert text_px >= 12
    assert page_px == 375, "nothing sticks out"
    tab.set_viewport_size(before)


def the_file_says_what_is_drawn(tab: "Page", theirs: list[Used]) -> int:
    """The tokens that the chart's bars speak of, once file, table and chart were found to agree."""
    with tab.expect_download() as download:
        tab.get_by_role("link", name="CSV").click()
    with download.value.path().open(newline="") as file:
        rows = list(csv.DictReader(file))
    sums = {name: sum(int(row[name]) for row in rows) for name in REPORTED_COLUMNS}
    total = [
        *(sums[name] for name in ("requests", "errors", *TOKEN_COLUMNS)),
        sum(sums[name] for name in TOKEN_COLUMNS),
        *(sums[name] for name in LATER_COLUMNS),
    ]
    assert tab.locator("tfoot td").all_inner_texts() == [*map(grouped, total), usd(sums["cost_nano_usd"])]
    assert sums["errors"] == sum(each.settlement.outcome in ERRORS for each in theirs)
    labels = [bar.get_attribute("aria-label") or "" for bar in tab.locator(".chart a:visible").all()]
    tokens = [int(label.split(": ")[1].partition(" tokens")[0].replace(",", "")) for label in labels]
    assert sum(tokens) == sum(sums[name] for name in TOKEN_COLUMNS)
    return sum(tokens)
