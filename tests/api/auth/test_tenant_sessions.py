"""Whatever serves a tenant asks Postgres as `naka_tenant`: shown by taking the application's own sight away."""

import ast
import re
from typing import Any

import pytest

from core.postgres.roles import READER
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.harness import ROOT, Account
from tests.pages.conftest import (
    SignIn,
    sign_in,  # noqa: F401 - the fixture
)
from tests.pages.reported import drawn, settle

SERVES_A_TENANT = {"TenantAdmin", "AccountAdmin", "Reader", "TenantContext", "ReaderContext", "ServiceContext"}
GUARDED = """
SELECT polrelid::regclass::text AS name FROM pg_policy
 WHERE polname = 'naka_all' AND polrelid <> ALL ('{api_keys,users,web_sessions}'::regclass[])
"""
"""A key, and whether its user is disabled, is looked for before anybody knows whose it is."""
PAGES = (
    *(f"/account/{name}" for name in ("plan", "bills", "keys", "alerts", "profile")),
    "/reports",
    "/reports/requests",
)
ENDPOINT = {"url": "https://app.example.com/hooks"}


async def blind(api: Api) -> None:
    """The application's role sees nothing any more: what is left is the tenant's policy, which wants a tenant named."""
    for row in await api.books.fetch(GUARDED):
        await api.books.fetch(f"ALTER POLICY naka_all ON {row['name']} TO {READER}")


def reads(admin: Account) -> list[str]:
    """Paths that a tenant's admin may read and that have content."""
    tenant, user, key = admin.tenant_id, admin.user_id, admin.key_id
    reports = [
        f"reports/usage?group_by={groups}&names=true" for groups in ("tenant,user,key", "day,model", "month", "")
    ]
    admins = [
        "tenants",
        f"tenants/{tenant}",
        f"tenants/{tenant}/users",
        f"tenants/{tenant}/limits",
        f"tenants/{tenant}/user-limits",
        f"tenants/{tenant}/new-users",
        f"users/{user}",
        f"users/{user}/keys",
        f"users/{user}/limits",
        "audit",
        "requests",
        "requests?format=csv",
        f"requests?key_id={key}",
        *reports,
        *(f"{report}&format=csv" for report in reports),
    ]
    return [*(f"/v1/admin/{path}" for path in admins), "/v1/usage", "/v1/billing/alerts/endpoint", "/v1/billing/alerts"]


async def admin_with_usage(api: Api) -> Account:
    """A tenant that has used something, and its admin."""
    account = await api.books.account(scopes=[Scope.TENANT_ADMIN, Scope.USAGE_READ])
    await settle(api.books, drawn(1, [account], days=1, each=5))
    return account


@pytest.mark.slow
async def test_a_tenants_reads_need_nothing_that_the_application_may_see(api: Api) -> None:
    admin, operator = await admin_with_usage(api), await api.platform_admin()
    await api.http.put("/v1/billing/alerts/endpoint", headers=admin.headers, json=ENDPOINT)
    await api.http.post("/v1/billing/alerts/endpoint/test", headers=admin.headers)
    before = {path: await _read(api, admin, path) for path in reads(admin)}
    assert all(len(body) > 20 for body in before.values()), "there is something to be seen"
    await blind(api)
    found = await api.http.get(f"/v1/admin/tenants/{admin.tenant_id}", headers=operator.headers)
    assert found.status_code == 500, "the operator's own queries are blind"
    assert {path: await _read(api, admin, path) for path in reads(admin)} == before


async def _read(api: Api, account: Account, path: str) -> str:
    answer = await api.http.get(path, headers=account.headers)
    assert answer.status_code == 200, (path, answer.text)
    return re.sub(r'"last_used_at":"[^"]*"', '"last_used_at":null', answer.text)  # it moves with a heartbeat


@pytest.mark.slow
async def test_a_tenants_changes_are_made_under_its_own_role(api: Api) -> None:
    admin = await api.tenant_admin()
    await blind(api)
    user = (await api.call(admin, "POST", f"/tenants/{admin.tenant_id}/users", json={"external_id": "ada"})).json()
    key = (await api.call(admin, "POST", f"/users/{user['id']}/keys", json={"name": "laptop"}, expect=201)).json()
    rotated = await api.call(admin, "POST", f"/keys/{key['id']}/rotate", json={"overlap_s": 0}, expect=201)
    await api.call(admin, "DELETE", f"/keys/{rotated.json()['id']}", expect=204)
    limits = {"limits": [{"meter": "tokens", "window": "day", "limit": 5}]}
    for _ in range(2):
        await api.call(admin, "PUT", f"/users/{user['id']}/limits", json=limits, expect=200)
    await api.call(admin, "PUT", f"/tenants/{admin.tenant_id}/user-limits", json=limits, expect=200)
    new_users = {"makes_users": False, "new_users_per_minute": 7}
    await api.call(admin, "PUT", f"/tenants/{admin.tenant_id}/new-users", json=new_users, expect=200)
    await api.call(admin, "PUT", f"/users/{user['id']}/state", json={"disabled": True}, expect=200)
    for method, path, body in (
        ("PUT", "/endpoint", ENDPOINT),
        ("POST", "/endpoint/rotate", None),
        ("POST", "/endpoint/test", None),
        ("DELETE", "/endpoint", None),
    ):
        answer = await api.http.request(method, f"/v1/billing/alerts{path}", headers=admin.headers, json=body)
        assert answer.is_success, (path, answer.text)
    rows = await api.books.fetch("SELECT action FROM audit_log WHERE actor LIKE 'key:%' ORDER BY id")
    assert [row["action"] for row in rows][:4] == ["user.create", "key.create", "key.create", "key.rotate"]


@pytest.mark.slow
async def test_a_tenants_pages_are_drawn_under_its_own_role(api: Api, sign_in: SignIn) -> None:  # noqa: F811
    """All but `/account`, which also shows the standing with limits, out of the caches of the metered path."""
    browser = await sign_in(await admin_with_usage(api))
    before = {path: await browser.get(path) for path in PAGES}
    await blind(api)
    for path, earlier in before.items():
        again = await browser.get(path)
        assert (earlier.status_code, again.status_code) == (200, 200), (path, again.text)
        assert len(again.text) > 0.9 * len(earlier.text), f"something is missing on {path}"


def test_no_route_of_a_tenant_opens_a_session_for_everybody() -> None:
    found = []
    for folder in ("routes", "pages", "services"):
        for file in sorted((ROOT / "api" / folder).rglob("*.py")):
            for function in ast.walk(ast.parse(file.read_text())):
                if isinstance(function, ast.AsyncFunctionDef) and _serves_a_tenant(function):
                    found += [f"{file.name}: {function.name}" for call in ast.walk(function) if _is_unconfined(call)]
    assert found == []


def _serves_a_tenant(function: ast.AsyncFunctionDef) -> bool:
    given = [*function.args.args, *function.args.kwonlyargs]
    return any(isinstance(each.annotation, ast.Name) and each.annotation.id in SERVES_A_TENANT for each in given)


def _is_unconfined(node: Any) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("database.session") and not node.keywords
