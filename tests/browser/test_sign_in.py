"""An admin signs in at the identity provider, invites a colleague, and the colleague sees what was used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen
from uuid import UUID, uuid4

import pytest

from core.identity.members import NewMember, add_member
from core.identity.roles import Role
from tests import fork_server
from tests.browser.conftest import Watch, axe
from tests.browser.stack import Stack
from tests.harness import ACTOR, Account, Api, Books, environment, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The URL of an identity provider."""
    process, url = fork_server.listening("sandbox.oidc", "--port", "0")
    yield url
    fork_server.stop(process)


@pytest.fixture(scope="module")
def site(stack: Stack, provider: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an API of the stack that has the provider."""
    log: Path = tmp_path_factory.mktemp("sign-in") / "api.log"
    oidc = {"OIDC_ISSUER": provider, "OIDC_CLIENT_ID": "naka-sandbox", "OIDC_CLIENT_SECRET": "sandbox_oidc_secret"}
    settings = environment(stack.database_url, redis_url, stack.simulator.url, OIDC_NAME="Example", **oidc)
    with running(Api(settings, log)) as api:
        yield api.url


def owner_of(stack: Stack, account: Account, provider: str) -> str:
    """The address of a new owner of the account's tenant, whom the provider lists, with a colleague who is invited."""
    mark = uuid4().hex[:8]
    people = [{"email": f"{name}-{mark}@acme.example", "name": name.title()} for name in ("grace", "lin")]
    data = json.dumps({"people": people}).encode()
    with urlopen(Request(f"{provider}/_sim/people", data, {"content-type": "application/json"}), timeout=20):
        pass
    email, tenant_id = people[0]["email"], account.tenant_id

    async def add(books: Books) -> UUID:
        async with books.database.session() as session:
            return (await add_member(session, ACTOR, tenant_id, NewMember(email, Role.OWNER), live=False)).id

    stack.books(add)
    return email


@pytest.mark.slow
def test_an_owner_invites_a_colleague_who_sees_usage_by_feature(
    tab: "Page", watch: Watch, browser: "Browser", stack: Stack, site: str, provider: str
) -> None:
    account = stack.customer()
    stack.call("PUT", f"/v1/admin/tenants/{account.tenant_id}/tag-keys/feature", account)
    stack.chat(account, tags={"feature": "search"}, input_tokens=321, words=5)
    stack.chat(account, input_tokens=12, words=5)
    owner = owner_of(stack, account, provider)
    colleague = owner.replace("grace", "lin")

    tab.goto(f"{site}/account/members")
    assert axe(tab) == []
    tab.get_by_role("button", name="Sign in with Example").click()
    tab.get_by_role("button", name=owner).click()
    tab.get_by_role("heading", name="Members", exact=True).wait_for()
    assert tab.url == f"{site}/account/members", "where the visit began"
    tab.go_back()
    assert not tab.url.startswith(f"{site}/sign-in/oidc/callback"), "the way back is not in the history"
    tab.goto(f"{site}/account/members")
    link = invites(tab, colleague)
    assert axe(tab) == []

    context = browser.new_context(viewport={"width": 1100, "height": 760}, locale="en-GB")
    other = context.new_page()
    accepts(other, link, colleague, site)
    other.get_by_role("link", name="By feature").click()
    rows = other.get_by_role("row")
    rows.filter(has_text="search").filter(has_text="321").wait_for()
    rows.filter(has_text="Without this tag").filter(has_text="12").wait_for()
    assert other.get_by_role("heading", level=1).inner_text() == "Usage"
    assert other.get_by_role("link", name="Account").count() == 0, "a viewer does not administer"
    assert axe(other) == []

    removes(tab, colleague)
    other.reload()
    other.get_by_role("heading", name="Sign in").wait_for()
    context.close()

    tab.locator("a.tenant").click()
    tab.get_by_role("heading", name="Your sign-in").wait_for()
    assert axe(tab) == []
    tab.get_by_text("Sign out everywhere").first.click()
    tab.get_by_role("button", name="Sign out everywhere").click()
    tab.get_by_text("You are signed out in every browser").wait_for()
    tab.go_back()
    tab.get_by_role("heading", name="Sign in").wait_for()
    assert watch.console == []
    assert watch.hosts == {site.removeprefix("http://"), provider.removeprefix("http://")}


def invites(tab: "Page", email: str) -> str:
    """Invites; the link, which the page shows once."""
    tab.get_by_label("Email").fill(email)
    tab.get_by_role("button", name="Create invitation").click()
    tab.get_by_role("heading", name=f"Invitation for {email}").wait_for()
    link = tab.locator("#link").inner_text()
    tab.reload()
    assert tab.locator("#link").count() == 0
    return link


def accepts(tab: "Page", link: str, email: str, site: str) -> None:
    """Opens the link, and signs in at the provider with the invited address."""
    tab.goto(link)
    tab.get_by_text(f"with the address {email}").wait_for()
    assert axe(tab) == []
    tab.get_by_role("button", name="Sign in with Example").click()
    tab.get_by_role("button", name=email).click()
    tab.wait_for_url(f"{site}/reports*")


def removes(tab: "Page", email: str) -> None:
    """Removes a member."""
    tab.goto(f"{tab.url.partition('/account')[0]}/account/members")
    row = tab.get_by_role("listitem").filter(has_text=email)
    row.get_by_text("Remove", exact=True).click()
    row.get_by_role("button", name=f"Remove {email}").click()
    tab.get_by_text("Member removed").wait_for()
