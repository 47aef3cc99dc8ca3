"""The API's description: each route says what it is for, shows a request and an answer; and the page made of it."""

from threading import current_thread, main_thread
from typing import Any

import httpx2
import pytest

from api.app import create_app
from api.openapi.description import PROBLEM
from core.settings import Settings
from tests.api.conftest import Api

_FILES = {"text/html", "application/pdf", "text/plain"}
"""Answers that are not shown."""


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    app = create_app(Settings(_env_file=None, database_url="postgresql://nobody/none", redis_url="redis://nobody"))
    return app.openapi()


def operations(described: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{method} {path}", given) for path, each in described["paths"].items() for method, given in each.items()]


def test_every_route_says_what_it_is_for(described: dict[str, Any]) -> None:
    said = {name: given["summary"] for name, given in operations(described)}
    assert len(said) > 70
    assert {name for name, words in said.items() if len(words) < 8} == set()
    assert len(set(said.values())) > 0.9 * len(said), "no two say the same"


def test_every_route_shows_what_is_sent_and_what_comes_back(described: dict[str, Any]) -> None:
    schemas, without = described["components"]["schemas"], []
    for name, given in operations(described):
        body = given.get("requestBody", {}).get("content", {})
        for kind, content in body.items():
            named = schemas.get(content.get("schema", {}).get("$ref", "").rpartition("/")[2], {})
            if not {"example", "examples"} & {*content, *named}:
                without.append(f"{name}: body {kind}")
        for status, answer in given["responses"].items():
            kinds = answer.get("content", {}) if str(status).startswith("2") else {}
            without += [f"{name}: {kind}" for kind, it in kinds.items() if kind not in _FILES and "example" not in it]
    assert without == []


@pytest.mark.slow
def test_an_example_has_every_field_in_its_type(described: dict[str, Any]) -> None:
    answer = described["paths"]["/v1/billing/bills"]["get"]["responses"]["200"]["content"]["application/json"][
        "example"
    ]
    assert answer["next"] is None
    (bill,) = answer["items"]
    assert set(bill) == set(described["components"]["schemas"]["BillItem"]["properties"])
    assert (type(bill["total_paise"]), bill["kind"], bill["due_at"]) == (int, "base", "2026-11-23T05:30:00Z")
    assert described["components"]["schemas"]["Problem"] == PROBLEM


@pytest.mark.slow
async def test_the_page_has_all_of_it_for_everybody(api: Api, described: dict[str, Any]) -> None:
    page: httpx2.Response = await api.http.get("/docs")
    assert page.status_code == 200
    for path in described["paths"]:
        assert path in page.text, path
    assert "Scope: <code>platform:admin</code>" in page.text
    assert "curl $NAKA/v1/admin/tenants \\\n" in page.text
    assert "<script" not in page.text


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/openapi.json?v=2"])
async def test_the_description_is_made_beside_the_event_loop(
    api: Api, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a second of CPU, in which the loop would send nobody a word."""
    makers = []
    make = api.app.openapi

    def openapi() -> dict[str, Any]:
        makers.append(current_thread())
        return make()

    monkeypatch.setattr(api.app, "openapi", openapi)
    answer = await api.http.get(path)

    assert (answer.status_code, "/v1/usage" in answer.text) == (200, True)
    assert len(makers) == 1
    assert main_thread() not in makers
