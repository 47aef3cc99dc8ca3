"""HEAD on every GET route, and CORS."""

from datetime import UTC, datetime

import pytest

from tests.api.conftest import Api
from tests.harness import ROOT

STATIC = ROOT / "api" / "pages" / "static"
VARIABLE = {"x-request-id", "date"}
LASTING = ("/healthz", "/sign-in", "/openapi.json", "/static/none", "/nowhere")
TRACING = ("traceparent", "tracestate", "baggage", "sentry-trace")


PAGES = ("/", "/sign-in", "/account", "/reports", "/operator", "/docs", "/openapi.json", "/static/none", "/nowhere")


def _paths(api: Api) -> list[str]:
    """Returns every GET of the API without path parameters, and the pages."""
    described = [path for path, methods in api.app.openapi()["paths"].items() if "get" in methods and "{" not in path]
    static = [f"/static/{file.name}" for file in sorted(STATIC.iterdir()) if file.is_file()][:2]
    return sorted({*described, *PAGES, *static})


@pytest.mark.slow
async def test_head_answers_as_get_without_a_body(api: Api) -> None:
    admin, operator = await api.tenant_admin(), await api.platform_admin()
    paths = _paths(api)
    assert {"/healthz", "/readyz", "/metrics", "/v1/usage", "/v1/admin/requests"} <= set(paths)
    for path in paths:
        for account in (admin, operator):
            got = await api.http.get(path, headers=account.headers)
            head = await api.http.head(path, headers=account.headers)
            assert head.content == b"", path
            assert head.status_code == got.status_code, path
            assert set(head.headers) - VARIABLE == set(got.headers) - VARIABLE, path
            if path in LASTING:
                assert head.headers.get("content-length") == got.headers.get("content-length"), path


async def test_head_of_a_long_answer_ends_at_once(api: Api) -> None:
    admin = await api.tenant_admin()
    today = datetime.now(UTC).date().isoformat()
    query = {"format": "csv", "group_by": "model", "from": today, "to": today}
    head = await api.http.head("/v1/admin/reports/usage", params=query, headers=admin.headers)
    assert (head.status_code, head.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert (head.content, "content-length" in head.headers) == (b"", False)


async def test_head_of_chat_is_no_chat(api: Api) -> None:
    answer = await api.http.head("/chat", headers=(await api.books.account()).headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("header", TRACING)
async def test_a_frontend_that_traces_may_call(api: Api, header: str) -> None:
    asks = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": f"authorization,content-type,{header}",
    }
    answer = await api.http.options("/chat", headers=asks)
    assert answer.status_code == 200, answer.text
    assert header in answer.headers["access-control-allow-headers"].split(", ")
