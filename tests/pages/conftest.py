"""The application of `tests/api`, and somebody at a browser who signs in to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from core.settings import Settings
from tests.api.conftest import Api, api, settings  # noqa: F401 - the same application, as fixtures
from tests.harness import Account

if TYPE_CHECKING:
    from tests.pages.provider import AtProvider

ORIGIN = "http://naka.test"
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


async def submit(browser: httpx2.AsyncClient, path: str, data: Any = None) -> httpx2.Response:
    """Sends a form, which answers with a redirect whatever it did, and opens the page that it leads to."""
    answer = await browser.post(path, data=data)
    assert answer.status_code == 303, (path, answer.status_code, answer.text)
    return await browser.get(answer.headers["location"])


SignIn = Callable[[Account], Awaitable[httpx2.AsyncClient]]


@pytest.fixture
async def sign_in(api: Api) -> AsyncIterator[SignIn]:  # noqa: F811 - the fixture
    """A browser of this account's: keeps its cookies, and says that its requests come from our own pages."""
    browsers: list[httpx2.AsyncClient] = []

    async def begin(account: Account) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=api.app)
        browser = httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=SAME_ORIGIN)
        browsers.append(browser)
        answer = await browser.post("/sign-in", data={"key": account.key})
        assert answer.status_code == 303, answer.text
        return browser

    yield begin
    for browser in browsers:
        await browser.aclose()


@pytest.fixture
async def provider(settings: Settings) -> "AsyncIterator[AtProvider]":  # noqa: F811 - the fixture
    """A site where people sign in at an identity provider."""
    from tests.pages.provider import site, with_provider  # noqa: PLC0415 - it imports this module

    async with site(with_provider(settings)) as opened:
        yield opened
