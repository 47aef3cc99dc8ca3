"""The usage pages: every figure is the same wherever it stands, and nobody sees what is another's."""

import csv
import html
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from html.parser import HTMLParser
from io import StringIO
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

import pytest

from api.pages.reports.view import BadView, read_view
from api.services.usage import reports
from core.clock import now_ms
from core.figures import grouped, usd
from core.tenancy.principal import Scope
from metering.counts import LATER_COLUMNS, TOKEN_COLUMNS, USAGE_COLUMNS
from metering.pricing.answer_cost import IterationUsage
from metering.pricing.tokens import Usage
from tests.api.conftest import Api
from tests.harness import Account
from tests.metering.rows import KOLKATA
from tests.pages.conftest import SignIn
from tests.pages.reported import DAY_MS, Used, drawn, settle, used

HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;"
DAYS = 20


def rows_of(page: str) -> list[list[str]]:
    """The cells of the page's last table as they are read, row by row."""
    table = page.rpartition("<table>")[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row] for row in cells]


class Seen(HTMLParser):
    """What a browser makes of a page: (tag, attribute, value) of each, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += [(tag, name, value or "") for name, value in attrs] or [(tag, "", "")]

    def handle_data(self, data: str) -> None:
        self.text += data


def tiles_of(page: str) -> dict[str, str]:
    found = re.findall(r'<p class="label">(.*?)</p><p class="figure"[^>]*>(.*?)</p>', page)
    return {html.unescape(label): html.unescape(value) for label, value in found}


def counts(found: Sequence[Used]) -> Counter[str]:
    """What the rows of the requests come to: the judge of all others."""
    total: Counter[str] = Counter()
    for each in found:
        settled = each.settlement
        total["requests"] += settled.requests
        total["errors"] += settled.outcome in ("upstream_refused", "upstream_broke")
        total["cost_nano_usd"] += settled.cost_nano_usd
        for name in USAGE_COLUMNS:
            total[name] += getattr(settled.usage, name)
    return total


def as_shown(sums: Counter[str]) -> list[str]:
    """The cells of a row, without a price."""
    tokens = sum(sums[name] for name in TOKEN_COLUMNS)
    return [
        *(grouped(sums[name]) for name in ("requests", "errors", *TOKEN_COLUMNS)),
        grouped(tokens),
        *(grouped(sums[name]) for name in LATER_COLUMNS),
        usd(sums["cost_nano_usd"]),
    ]


async def company(api: Api, users: int = 4) -> list[Account]:
    """A tenant: its admin, who also chats, and others."""
    admin = await api.books.account(scopes=[Scope.TENANT_ADMIN, Scope.CHAT])
    return [admin, *[await api.books.account(tenant_id=admin.tenant_id) for _ in range(users - 1)]]


@pytest.fixture
async def people(api: Api) -> list[Account]:
    return await company(api)


@pytest.mark.slow
async def test_page_csv_and_api_say_the_same_and_add_up(api: Api, people: list[Account], sign_in: SignIn) -> None:
    found = drawn(5, people, days=DAYS, each=60)
    await settle(api.books, found)
    await settle(api.books, drawn(6, await company(api, 2), days=DAYS, each=5))  # another tenant's
    browser = await sign_in(people[0])
    today = KOLKATA.date_of(now_ms())
    days = {"from": f"{today - timedelta(days=DAYS)}", "to": f"{today}"}
    for group, column, key_of in (
        ("day", "day", lambda each: str(KOLKATA.date_of(each.at_ms))),
        ("user", "user_id", lambda each: str(each.account.user_id)),
        ("key", "key_id", lambda each: str(each.account.key_id)),
        ("model", "model", lambda each: each.settlement.model),
    ):
        by_key = {key: counts([each for each in found if key_of(each) == key]) for key in map(key_of, found)}
        page = (await browser.get("/reports", params=days | {"group_by": group})).text
        head, *rows, total = rows_of(page)
        assert len(head) == 12, "no price is shown where there is no rate"
        assert total[1:] == as_shown(counts(found))
        assert sorted(row[1:] for row in rows) == sorted(as_shown(sums) for sums in by_key.values())
        link = html.unescape(re.search(r'href="(/v1/[^"]+format=csv[^"]*)"', page)[1])  # type: ignore[index]
        listed = list(csv.DictReader(StringIO((await browser.get(link)).content.decode("utf-8-sig"))))
        assert {
            row[column]: Counter({name: int(row[name]) for name in by_key[row[column]]}) for row in listed
        } == by_key
        shown = tiles_of(page)
        assert (shown["Requests"], shown["Provider cost"]) == (total[1], total[-1])
        if group != "day":
            tokens = [int(row[-4].replace(",", "")) for row in rows]
            assert tokens == sorted(tokens, reverse=True), "the heaviest comes first"
        curl = html.unescape(re.search(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)[1])  # type: ignore[index]
        url = curl.split("'")[1]
        items = (await browser.get(url.removeprefix("http://naka.test"))).json()["items"]
        assert {str(item[column]): item["output_tokens"] for item in items} == {
            key: sums["output_tokens"] for key, sums in by_key.items()
        }


async def test_what_is_not_shown_is_in_the_others(
    api: Api, people: list[Account], sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = drawn(3, people, days=2, each=20)
    await settle(api.books, found)
    browser = await sign_in(people[0])
    monkeypatch.setattr(reports, "SHOWN_ROWS", 1)
    for group in ("user", "day"):
        _, *rows, total = rows_of(
            (await browser.get(f"/reports?group_by={group}&from={KOLKATA.date_of(now_ms() - 2 * DAY_MS)}")).text
        )
        assert len(rows) == 2
        for shown, rest, whole in zip(*(cells[1:-1] for cells in (*rows, total)), strict=True):
            assert grouped(int(shown.replace(",", "")) + int(rest.replace(",", ""))) == whole
        assert (" other" in rows[1][0]) == (group == "user"), "days are never cut"
        assert total[1:] == as_shown(counts(found))


@pytest.mark.slow
async def test_each_bar_leads_one_level_down_until_the_requests(
    api: Api, people: list[Account], sign_in: SignIn
) -> None:
    found = drawn(8, people, days=3, each=30)
    with_another_key = replace(people[2], key_id=uuid4())
    await settle(api.books, [*found, used(random.Random(1), with_another_key, now_ms() - 5 * DAY_MS)])
    browser = await sign_in(people[0])
    today = KOLKATA.date_of(now_ms())

    async def down(path: str, name: str) -> tuple[str, str]:
        """Where the bar leads whose words begin with `name`, and that page."""
        page = (await browser.get(path)).text
        href = re.search(rf'<svg class="wide".*?<a href="([^"]+)" aria-label="{name}', page, re.DOTALL)
        assert href is not None, page
        path = html.unescape(href[1])
        answer = await browser.get(path)
        assert answer.status_code == 200
        return path, answer.text

    day = f"{today.day} {today:%b %Y}"
    path, page = await down(f"/reports?from={today - timedelta(days=2)}&to={today}", day)
    assert "group_by=user" in path
    (name,) = await api.books.fetch("SELECT external_id FROM users WHERE id = $1", people[1].user_id)
    path, page = await down(path, name["external_id"])
    theirs = [each for each in found if each.account is people[1] and KOLKATA.date_of(each.at_ms) == today]
    listed = re.findall(r'href="/reports/requests/([0-9a-f-]{36})"', page)
    assert [UUID(each) for each in listed] == sorted((each.settlement.id for each in theirs), reverse=True)
    link = html.unescape(re.search(r'href="(/v1/[^"]+format=csv)"', page)[1])  # type: ignore[index]
    assert [
        row["id"] for row in csv.DictReader(StringIO((await browser.get(link)).content.decode("utf-8-sig")))
    ] == listed
    request = (await browser.get(f"/reports/requests/{listed[0]}")).text
    first = max(theirs, key=lambda each: each.settlement.id).settlement
    assert ["Input", grouped(first.usage.input_tokens)] in rows_of(request)
    keys = (await browser.get(f"/reports/requests?key_id={people[2].key_id}&from={today - timedelta(days=9)}")).text
    assert keys.count('href="/reports/requests/0') == len([each for each in found if each.account is people[2]])


@pytest.mark.slow
async def test_names_from_outside_are_harmless_and_the_picture_is_ours_alone(
    api: Api, people: list[Account], sign_in: SignIn
) -> None:
    admin = people[0]
    await api.books.fetch("UPDATE users SET external_id = $2 WHERE id = $1", admin.user_id, HOSTILE)
    await api.books.fetch("UPDATE api_keys SET name = $2 WHERE id = $1", admin.key_id, HOSTILE)
    draw = random.Random(4)
    found = [used(draw, each, now_ms(), model=HOSTILE) for each in (admin, *await company(api, 2), *people)]
    crowd = [await api.books.account(tenant_id=admin.tenant_id) for _ in range(21)]  # more than a picture has bars
    found += [used(draw, each, now_ms()) for each in crowd]
    await settle(api.books, found)
    browser = await sign_in(admin)
    for path in ("?group_by=user", "?group_by=key", "?group_by=model", "?group_by=day", "/requests",
                 f"/requests/{found[0].settlement.id}", f"?user_id={admin.user_id}", "/live"):  # fmt: skip
        answer = await browser.get(f"/reports{path}")
        assert answer.status_code == 200, answer.text
        seen = Seen(answer.text)
        assert {tag for tag, _, _ in seen.tags}.isdisjoint({"img", "style", "defs", "image", "foreignobject"})
        scripts = {value for tag, name, value in seen.tags if tag == "script" and name != "type"}
        assert scripts == ({"/static/live.js"} if path == "/live" else set())
        for tag, name, value in seen.tags:
            assert name != "style", tag
            assert not name.startswith(("on", "xlink")), tag
            assert name not in ("href", "src", "action") or value.startswith(("/", "#")), (tag, name, value)
        assert ("5 others together: " in answer.text) == (path in {"?group_by=user", "?group_by=key"})
        assert (HOSTILE in seen.text) == (path not in {"?group_by=day", "/live"}), path


@pytest.mark.slow
async def test_another_tenants_is_not_found(api: Api, people: list[Account], sign_in: SignIn) -> None:
    theirs = await company(api, 2)
    found = [*drawn(1, people, days=1, each=4), *drawn(2, theirs, days=1, each=4)]
    await settle(api.books, found)
    slugs = {row["id"]: row["slug"] for row in await api.books.fetch("SELECT id, slug FROM tenants")}
    browser = await sign_in(people[0])
    for path in (
        f"?tenant={slugs[theirs[0].tenant_id]}",
        "?tenant=nobody-at-all",
        f"?user_id={theirs[0].user_id}",
        f"?key_id={theirs[0].key_id}",
        f"/requests?user_id={theirs[0].user_id}",
        f"/requests?tenant={slugs[theirs[0].tenant_id]}",
        f"/requests/{found[-1].settlement.id}",
    ):
        answer = await browser.get(f"/reports{path}")
        assert (answer.status_code, "Page not found" in answer.text) == (404, True), path
    refused = await browser.get("/reports?group_by=tenant&from=<b>&to=2026-11-10")
    assert refused.status_code == 422
    assert "Write a day as 2026-11-30." in refused.text
    assert 'value="&lt;b&gt;"' in refused.text, "what was typed is still there, and only text"
    assert str(found[-1].settlement.id) not in (await browser.get("/reports/requests")).text
    operator = await sign_in(await api.platform_admin())
    _, *rows, total = rows_of((await operator.get("/reports?group_by=tenant")).text)
    assert total[1:] == as_shown(counts(found))
    assert {row[0].split("\n")[0][:22] for row in rows} == {slugs[who[0].tenant_id] for who in (people, theirs)}
    page = (await operator.get("/reports", params={"tenant": slugs[theirs[0].tenant_id]})).text
    link = html.unescape(re.search(r'href="(/v1/[^"]+format=csv[^"]*)"', page)[1])  # type: ignore[index]
    listed = csv.DictReader(StringIO((await operator.get(link)).content.decode("utf-8-sig")))
    *_, total = rows_of(page)
    assert total[1] == grouped(sum(int(row["requests"]) for row in listed))
    assert total[1:] == as_shown(counts([each for each in found if each.account in theirs]))
    chatter = await sign_in(await api.books.account(scopes=[Scope.CHAT]))
    for path in ("", "/requests", "/live", "/live/events"):
        assert (await chatter.get(f"/reports{path}")).status_code == 403


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("from=2026-11-20&to=2026-11-10", "The first day is after the last one."),
        ("from=yesterday", "Write a day as 2026-11-30."),
        ("from=2024-01-01&to=2026-11-10", "at most 401 days"),
        ("from=1999-01-01", "Choose days from 2020 to 2100."),
        ("group_by=tenant", "group_by is one of day, user, key, model."),
        ("order=secrets", "order is one of"),
        ("user_id=me", "user_id is not an id"),
        ("model=%00", "has invalid characters"),
    ],
)
def test_what_cannot_be_shown_is_said_in_words(query: str, words: str) -> None:
    with pytest.raises(BadView, match=re.escape(words)):
        read_view(dict(parse_qsl(query)), date(2026, 11, 23), sees_tenants=False, sees_cost=True)


async def test_a_request_shows_every_models_part_and_what_its_price_is_at(
    api: Api, people: list[Account], sign_in: SignIn
) -> None:
    plain = used(random.Random(4), people[0], now_ms(), model="claude-sonnet-4-6")
    others = (IterationUsage("claude-opus-5-5", Usage(500, 21), 2_662_000),)
    settlement = replace(
        plain.settlement, usage=Usage(1_000, 20), modifiers="speed:fast,inference_geo:us", others=others
    )
    await settle(api.books, [replace(plain, settlement=settlement)])
    page = (await (await sign_in(people[0])).get(f"/reports/requests/{settlement.id}")).text
    counts = rows_of(page.partition("Adjustments")[0])
    assert ["Input", grouped(1_500)] in counts
    assert ["Output", "41"] in counts
    assert "at speed:fast, inference_geo:us" in page
    assert re.search(r"Used by another model for this request</td>\s*<td[^>]*>claude-opus-5-5<", page)
    answer = await api.call(people[0], "GET", f"/entries?user_id={people[0].user_id}&kind=iteration", expect=200)
    assert [(item["model"], item["input_tokens"]) for item in answer.json()["items"]] == [("claude-opus-5-5", 500)]
