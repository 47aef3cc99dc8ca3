"""Every page at a desk and on a phone, in the light and in the dark: nothing sticks out, nobody is shut out.

`SCREENSHOTS=folder` also keeps a picture of each, in all four, for somebody to look at; the README's are of them.
"""

import os
import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import pytest

from tests.browser.conftest import PATIENCE_MS, axe
from tests.browser.stack import Stack
from tests.harness import Account, Books, scripted
from tests.rollups import fill_rollups

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

Scheme = Literal["light", "dark"]
PAGES = {
    "chat": "/",
    "account": "/account",
    "plan": "/account/plan",
    "profile": "/account/profile",
    "bills": "/account/bills",
    "keys": "/account/keys",
    "members": "/account/members",
    "session": "/session",
    "alerts": "/account/alerts",
    "reports": "/reports",
    "reports-by-user": "/reports?group_by=user",
    "requests": "/reports/requests",
    "live": "/reports/live",
}
OPERATORS = {
    "operator": "/operator",
    "tenants": "/operator/tenants",
    "charges": "/operator/charges",
    "mandates": "/operator/mandates",
    "coupons": "/operator/coupons",
    "webhooks": "/operator/webhooks",
    "reconciliation": "/operator/reconciliation",
    "audit": "/operator/audit",
    "reference": "/docs",
}
VIEWS: list[tuple[int, Scheme]] = [(375, "dark"), (1280, "light"), (1280, "dark"), (375, "light")]
"""The first is the narrowest and the one that the stories do not see: it is looked at in every run."""
_BEFORE = """
INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, requests, input_tokens, output_tokens,
                         cache_read_tokens, cost_nano_usd, errors)
SELECT u.tenant_id, u.id, d::date, to_char(d, 'YYYY-MM'), k.id, m.model,
       n, n * 410, n * 180, n * 90, n * 3930000, n / 40
  FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (id, place)
  JOIN users u ON u.id = wanted.id
  JOIN api_keys k ON k.tenant_id = u.tenant_id AND k.user_id = u.id
 CROSS JOIN generate_series(current_date - 30, current_date - 1, interval '1 day') d
 CROSS JOIN (VALUES ('claude-sonnet-4-6', 3), ('claude-haiku-4-5', 1)) AS m (model, share)
 CROSS JOIN LATERAL (
   SELECT (m.share * (7 + 5 * sin(extract(doy FROM d) * 0.9 + wanted.place)) * (6 - wanted.place)
           * CASE WHEN extract(isodow FROM d) > 5 THEN 0.3 ELSE 1 END)::bigint AS n
 ) AS used
 WHERE n > 0
"""
SCREENSHOTS = os.environ.get("SCREENSHOTS")
ANSWER = """A **toll post** stands where the road narrows. It

1. counts what passes,
2. stops what may not,
3. and sends the bill at the end of the month.

```python
tokens = usage.input_tokens + usage.output_tokens
```"""


@pytest.fixture(scope="module")
def customer(stack: Stack) -> Account:
    """A tenant that has been at it for a while: subscribed, some users, usage past the allowance, a bill."""
    admin = stack.customer()
    view = stack.call("POST", "/v1/billing/subscription", admin, plan="team")
    stack.razorpay.authorise(view["waiting"]["checkout"]["subscription_id"], "upi")
    stack.wait_until(lambda: bool(stack.call("GET", "/v1/billing/bills", admin)["items"]), "the first bill")
    people = [admin, *(stack.account(tenant_of=admin) for _ in range(4))]
    for number, person in enumerate(people):
        stack.chat(person, "hello", input_tokens=60 + 30 * number, output_tokens=30 + 12 * number)
    stack.books(_names)
    if SCREENSHOTS:
        stack.books(lambda books: _history(books, [person.user_id for person in people]))
    return admin


async def _names(books: Books) -> None:
    """As people are called, for the pictures."""
    names = ("ada@nimbus.example", "bruno@nimbus.example", "chitra@nimbus.example", "dev@nimbus.example", "support-bot")
    query = "SELECT id FROM users WHERE external_id LIKE 'u-%' ORDER BY created_at DESC LIMIT 5"
    for row, name in zip(await books.fetch(query), names, strict=True):
        await books.fetch("UPDATE users SET external_id = $2 WHERE id = $1", row["id"], name)
    await books.fetch("UPDATE tenants SET name = 'Nimbus Tools' WHERE slug LIKE 't-%'")


async def _history(books: Books, users: list[UUID]) -> None:
    """A month before today, in the rollups, so that charts have something to show."""
    await books.fetch(_BEFORE, users)
    await fill_rollups(books)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), VIEWS if SCREENSHOTS else VIEWS[:1])
def test_every_page(browser: "Browser", stack: Stack, customer: Account, width: int, scheme: Scheme) -> None:
    wrong: dict[str, list[str]] = {}
    for who, pages in ((customer, PAGES), (stack.operator, OPERATORS)):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, locale="en-IN", reduced_motion="reduce"
        )
        context.set_default_timeout(PATIENCE_MS)
        wrong |= _visits(context.new_page(), stack, who, pages, f"{width}-{scheme}")
        context.close()
    assert wrong == {}


def _visits(page: "Page", stack: Stack, who: Account, pages: dict[str, str], kind: str) -> dict[str, list[str]]:
    """What is wrong with each page, by its name."""
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    stack.sign_in(page, who, next(iter(pages.values())))
    wrong: dict[str, list[str]] = {}
    for name, path in pages.items():
        said.clear()
        answer = page.goto(f"{stack.url}{path}")
        assert answer is not None
        if name == "chat":
            _talk(page)
        status = [] if answer.status == HTTPStatus.OK else [f"status {answer.status}"]
        if found := [*status, *said, *_sticks_out(page), *axe(page)]:
            wrong[name] = found
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{kind}.png", full_page=name != "chat")
    return wrong


def _talk(page: "Page") -> None:
    if page.locator("article").count() == 0:
        page.get_by_label("Your message").fill(scripted("What is a naka?", text=ANSWER))
        page.get_by_role("button", name="Send").click()
        page.locator('article[data-state="ended"]').wait_for()
        page.locator(".meta", has_text=re.compile("used")).wait_for()
        page.evaluate("document.querySelector('.asked').textContent = 'What is a naka?'")


def _sticks_out(page: "Page") -> list[str]:
    """What is wider than the window, apart from what scrolls by itself."""
    found: list[str] = page.evaluate(
        """() => {
            if (document.documentElement.scrollWidth <= innerWidth) return [];
            return [...document.querySelectorAll("body *")]
                .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
                .filter((e) => !e.closest(".scroll, nav, pre"))
                .slice(0, 5).map((e) => `sticks out: ${e.localName}.${e.className} ${e.textContent.slice(0, 40)}`);
        }"""
    )
    return found
