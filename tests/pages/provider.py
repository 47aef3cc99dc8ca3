"""A browser that signs in at the simulated identity provider, in this process."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx2

from api.app import create_app
from core.identity.members import NewMember, add_member
from core.identity.roles import Role
from core.settings import Settings
from core.tenancy.models import Member
from sandbox.oidc import app as oidc
from sandbox.oidc.people import Person
from tests.api.conftest import Api
from tests.harness import ACTOR, Books
from tests.pages.conftest import ORIGIN, SAME_ORIGIN

ISSUER = "http://provider.test"
FROM_PROVIDER = {"sec-fetch-site": "cross-site"}
_TARGET = re.compile(r'http-equiv="refresh" content="0;url=([^"]*)"')


def with_provider(settings: Settings, **changed: Any) -> Settings:
    """The settings of a site with a provider."""
    oidc = {"oidc_issuer": ISSUER, "oidc_client_id": "naka", "oidc_client_secret": "s3cret/+", "oidc_name": "Example"}
    return Settings(_env_file=None, **{**settings.model_dump(), **oidc, **changed})


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator["AtProvider"]:
    """A site with these settings, and its provider."""
    app = create_app(settings)
    async with app.router.lifespan_context(app), httpx2.AsyncClient() as http:
        books = Books(settings.database_url)
        yield AtProvider(Api(app, http, books))
        await books.close()


class AtProvider:
    """The provider, and browsers that go there."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.app = oidc.create_app("naka", "s3cret/+", issuer=ISSUER)
        self.provider = self.app.state.provider
        transport = httpx2.ASGITransport(app=self.app)
        self.http = httpx2.AsyncClient(transport=transport, base_url=ISSUER)
        api.app.state.runtime.oidc._given = transport

    def browser(self, base_url: str = ORIGIN) -> httpx2.AsyncClient:
        """A browser without a session, at an address of its own: sign-ins are counted by network."""
        number = uuid4().hex
        transport = httpx2.ASGITransport(app=self.api.app, client=(f"2001:db8:{number[:4]}:{number[4:8]}::1", 1))
        return httpx2.AsyncClient(transport=transport, base_url=base_url, headers=SAME_ORIGIN)

    async def member(self, role: Role = Role.OWNER, email: str = "", tenant_id: UUID | None = None) -> Member:
        """Adds a member by email, in a new tenant unless one is given."""
        books = self.api.books
        tenant_id = tenant_id or (await books.account()).tenant_id
        email = email or f"p-{uuid4().hex[:12]}@acme.example"
        async with books.database.session() as session:
            return await add_member(session, ACTOR, tenant_id, NewMember(email, role), live=False)

    async def begin(self, browser: httpx2.AsyncClient, **form: str) -> str:
        """Presses the button; the provider's address."""
        page = await browser.post("/sign-in/oidc", data=form)
        assert page.status_code == 200, (page.status_code, page.text)
        return target_of(page)

    async def choose(self, url: str, email: str) -> str:
        """Signs in there; our address that the provider sends the browser to."""
        assert url.startswith(f"{ISSUER}/authorize?")
        assert email in (await self.http.get(url)).text or email not in self.provider.people
        answer = await self.http.post(url, data={"person": email})
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    async def callback(self, browser: httpx2.AsyncClient, email: str, **form: str) -> httpx2.Response:
        """The whole way; our answer to the provider's redirect."""
        back = await self.choose(await self.begin(browser, **form), email)
        return await browser.get(back, headers=FROM_PROVIDER)

    async def sign_in(self, browser: httpx2.AsyncClient, email: str, **form: str) -> httpx2.Response:
        """The whole way, to the page where it ends."""
        answer = await self.callback(browser, email, **form)
        assert answer.status_code == 200, answer.text
        return await browser.get(target_of(answer), follow_redirects=True)


def target_of(page: httpx2.Response) -> str:
    """The address that a page loads at once."""
    found = _TARGET.search(page.text)
    assert found is not None, page.text
    return unescape(found[1])


def query_of(url: str) -> dict[str, str]:
    """The parameters of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def person(email: str, **more: Any) -> Person:
    """Somebody whom the provider knows."""
    make: Callable[..., Person] = Person
    return make(email, email.partition("@")[0].title(), **more)
