"""Bad input that schemas accept (NUL, calendar limits, unknown parameters), and unexpected errors, on every route."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import Request

from api.app import create_app
from api.gateway.messages.errors import is_anthropic_path
from api.http.body_admission import BodyAdmission
from api.http.request_context import RequestContextMiddleware
from api.pages.route import PageRoute
from api.schemas.fields import Body
from core.settings import Settings
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.harness import Account

NOWHERE = Settings(
    _env_file=None, database_url="postgresql://nowhere/naka", redis_url="redis://nowhere", anthropic_api_key="-"
)
AT_THE_ENDS = [
    "0000-01-01",
    "0001-01-01",
    "9999-12-31",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00",
    f"{10**30}",
]
SECRET = "nk_live_secretsecretsecret"


class Broken(Exception):
    """An unexpected error that contains a secret."""


def routes() -> Iterator[tuple[str, str, Dependant]]:
    """Returns (method, path, dependant) of every FastAPI route."""
    for route in create_app(NOWHERE).routes:
        if isinstance(route, APIRoute):
            for method in sorted(route.methods or ()):
                path = route.path.replace("{which}", "books").replace("{event_name}", "evt_none")
                while "{" in path:
                    path = path.replace(path[path.index("{") : path.index("}") + 1], str(uuid4()), 1)
                yield method, path, route.dependant


def parameters(dependant: Dependant) -> list[str]:
    """Returns the parameters that a route declares."""
    return [field.alias for field in get_flat_params(dependant) if isinstance(field.field_info, Query)]


@pytest.fixture
async def almighty(api: Api) -> Account:
    """A key with all scopes."""
    return await api.books.account(scopes=list(Scope))


@pytest.mark.slow
async def test_no_value_of_a_parameter_breaks_a_route(api: Api, almighty: Account) -> None:
    asked = 0
    for method, path, dependant in routes():
        names = parameters(dependant) if method == "GET" else []
        for name in [*names, *(["from", "to", "cursor", "user_id"] if path.startswith("/reports") else [])]:
            for value in AT_THE_ENDS if name in ("from", "to") else AT_THE_ENDS[-1:]:
                answer = await api.http.get(path, params={name: value}, headers=almighty.headers)
                assert answer.status_code < 500, (path, name, value, answer.text)
                assert name not in ("from", "to") or answer.status_code == 422, (path, name, value, answer.text)
                asked += 1
    assert asked > 100
    for path in ("/v1/usage", "/v1/admin/reports/usage", "/reports", "/reports/requests"):
        for days in ("from=2020-01-01", "to=2100-12-31", "from=2020-01-01&to=2100-12-31"):
            assert (await api.http.get(f"{path}?{days}", headers=almighty.headers)).status_code == 422, (path, days)


@pytest.mark.slow
async def test_an_unknown_parameter_is_refused_by_every_route(api: Api, almighty: Account) -> None:
    refused = 0
    for method, path, _ in routes():
        answer = await api.http.request(method, path, params={"form": "2026"}, headers=almighty.headers)
        if path == "/webhooks/razorpay":
            assert answer.status_code == 415
            continue
        if path == "/sign-in/oidc/callback":  # a provider may send parameters of its own
            assert answer.status_code == 404, "there is no provider"
            continue
        # Anthropic's API takes parameters that nobody announced, and tools add one to the description's URL.
        if is_anthropic_path(path) or path in {"/api/hello", "/openapi.json"}:
            continue
        assert answer.status_code == 422, (method, path, answer.text)
        if answer.headers["content-type"] == "application/problem+json":
            assert answer.json()["errors"] == [{"loc": ["query", "form"], "rule": "extra_forbidden"}]
        refused += 1
    assert refused > 100
    for known in ("/reports?group_by=model&measure=requests&order=-requests", "/reports/requests?cursor="):
        answer = await api.http.get(known, headers=almighty.headers)
        assert answer.status_code == 200, (known, answer.text)
    assert (await api.http.get("/static/naka.css?v=1")).status_code == 200


async def test_a_nul_in_a_url_or_a_form_is_refused_whatever_the_route(api: Api, almighty: Account) -> None:
    for path in (
        "/%00",
        "/v1/admin/webhooks/a%00b",
        "/healthz?a%00=1",
        "/operator/audit?actor=a%00",
        "/static/%00.css",
    ):
        answer = await api.http.get(path, headers=almighty.headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), path
    assert (await api.http.get("/sign-in?next=/%2500")).status_code == 200
    same = {"sec-fetch-site": "same-origin"}
    for path, form in (
        ("/sign-in", {"key": "nk_\0"}),
        ("/sign-in", {"next": "/\0"}),
        ("/account/keys", {"external_id": "a\0"}),
        ("/account/keys", {"a\0": "a"}),
        ("/operator/findings/close", {"key": "a\0", "reason": "b"}),
    ):
        answer = await api.http.post(path, data=form, headers={**almighty.headers, **same})
        assert answer.status_code == 422, (path, form, answer.text)
        assert answer.headers["content-type"].startswith("text/html")


def bodies(kind: type[Body]) -> Iterator[type[Body]]:
    """Returns bodies of every kind."""
    for each in kind.__subclasses__():
        yield each
        yield from bodies(each)


def test_a_nul_in_any_text_of_any_body_is_refused() -> None:
    kinds = list(bodies(Body))
    assert len(kinds) > 20
    for kind in kinds:
        for value in ({"unheard_of": "a\0b"}, {"deep": [{"in": ["\0"]}]}, {"a\0": 1}):
            with pytest.raises(ValidationError) as refused:
                kind.model_validate(value)
            assert [item["type"] for item in refused.value.errors()] == ["nul_character"], kind


async def test_what_nobody_foresaw_is_a_problem_and_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    async def boom(_: Request) -> None:
        raise Broken(SECRET)

    api.app.router.routes[:0] = [APIRoute("/boom", boom), PageRoute("/boom-page", boom)]

    plain, page = await api.http.get("/boom"), await api.http.get("/boom-page")

    assert (plain.status_code, page.status_code) == (500, 500)
    assert SECRET not in plain.text + page.text
    assert plain.headers["content-type"] == "application/problem+json"
    assert (plain.json()["code"], plain.json()["request_id"]) == ("internal_error", plain.headers["x-request-id"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    logged = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert [(line["event"], line["path"], line["request_id"], type(line["exc_info"])) for line in logged] == [
        ("request_failed", "/boom", plain.headers["x-request-id"], Broken),
        ("request_failed", "/boom-page", page.headers["x-request-id"], Broken),
    ]


async def test_what_breaks_in_a_layer_is_a_problem(api: Api) -> None:
    async def layer(*_: Any) -> None:
        raise Broken(SECRET)

    sent: list[Any] = []
    directory = api.app.state.runtime.directory
    intake = BodyAdmission(directory, max_body_bytes=1, max_bytes=1, metered=frozenset(), keyless={})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    await RequestContextMiddleware(layer, body_admission=intake)(scope, _nothing, send)

    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["code"] == "internal_error"


async def _nothing() -> Any:
    return {"type": "http.disconnect"}
