"""The chat page, as it is rendered."""

import pytest

from core.errors import Unavailable
from core.tenancy.principal import Principal
from tests.api.conftest import Api
from tests.pages.conftest import SignIn


async def test_unknown_models_do_not_lose_the_page(api: Api, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await sign_in(await api.books.account())

    async def unavailable(_: Principal) -> list[str]:
        raise Unavailable("down")

    monkeypatch.setattr(api.app.state.runtime.allowed_models, "of", unavailable)
    page = await browser.get("/")

    assert page.status_code == 200
    assert api.app.state.runtime.settings.chat_model in page.text
