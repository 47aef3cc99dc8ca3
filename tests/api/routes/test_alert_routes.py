"""A tenant's alerts over HTTP: the endpoint and its secret, shown once; the log; the test message."""

import pytest

from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.harness import Account


async def call(api: Api, account: Account, method: str, path: str, **body: str) -> tuple[int, dict[str, object]]:
    """Status and body."""
    answer = await api.http.request(method, f"/v1/billing/alerts{path}", headers=account.headers, json=body or None)
    return answer.status_code, answer.json() if answer.content else {}


@pytest.mark.slow
async def test_an_endpoint_from_first_to_last(api: Api) -> None:
    admin = await api.tenant_admin()
    assert (await call(api, admin, "GET", "/endpoint"))[0] == 404
    assert (await call(api, admin, "POST", "/endpoint/test"))[0] == 404
    status, made = await call(api, admin, "PUT", "/endpoint", url="https://app.example.com/hooks")
    assert (status, str(made["secret"])[:6]) == (200, "whsec_")
    status, again = await call(api, admin, "PUT", "/endpoint", url="https://app.example.com/other")
    assert (status, again) == (200, {"url": "https://app.example.com/other", "enabled": True, "secret": None})
    assert (await call(api, admin, "GET", "/endpoint"))[1]["secret"] is None
    _, rotated = await call(api, admin, "POST", "/endpoint/rotate")
    assert rotated["secret"] not in {None, made["secret"]}

    status, sent = await call(api, admin, "POST", "/endpoint/test")
    assert (status, sent["type"], sent["delivery"]) == (202, "alerts.test", "pending")
    _, listed = await call(api, admin, "GET", "")
    assert listed["items"] == [sent]
    answer = await api.http.get(f"/v1/billing/alerts/{sent['id']}/deliveries", headers=admin.headers)
    assert answer.json() == []

    assert (await call(api, admin, "DELETE", "/endpoint"))[0] == 204
    assert (await call(api, admin, "DELETE", "/endpoint"))[0] == 404


async def test_a_neighbour_and_a_reader_see_nothing(api: Api) -> None:
    admin, neighbour = await api.tenant_admin(), await api.tenant_admin()
    await call(api, admin, "PUT", "/endpoint", url="https://app.example.com/hooks")
    _, sent = await call(api, admin, "POST", "/endpoint/test")
    assert (await call(api, neighbour, "GET", f"/{sent['id']}/deliveries"))[0] == 404
    assert (await call(api, neighbour, "GET", ""))[1]["items"] == []
    reader = await api.books.account(scopes=[Scope.CHAT, Scope.USAGE_READ])
    assert (await call(api, reader, "GET", ""))[0] == 403


async def test_what_is_no_endpoint_stores_nothing(api: Api) -> None:
    admin = await api.tenant_admin()
    for url in ("ftp://a.example/", "https://u:p@a.example/", "javascript:x", "https://"):
        status, problem = await call(api, admin, "PUT", "/endpoint", url=url)
        assert (status, problem["code"]) == (422, "invalid_request"), url
    assert (await call(api, admin, "GET", "/endpoint"))[0] == 404
