"""The operator's pages: for the operator alone, every text as text, every word of theirs done once and audited."""

import json
from uuid import UUID

import pytest

from core.clock import now_ms
from core.ids import uuid7
from core.tenancy.principal import Scope
from tests.api.conftest import Api
from tests.pages.conftest import SignIn, submit

PAGES = (
    "/operator",
    "/operator/tenants",
    "/operator/bills",
    "/operator/charges",
    "/operator/refunds",
    "/operator/mandates",
    "/operator/coupons",
    "/operator/findings",
    "/operator/webhooks",
    "/operator/reconciliation",
    "/operator/audit",
    "/operator/plans",
    "/operator/prices",
)
EVIL = "<script>alert(1)</script>"
_EVENT = """INSERT INTO webhook_events (event_id, kind, body, received_ms, state, tries, due_ms, tenant_id, reason)
    VALUES ('evt_1', $3, $4, $2, 'parked', 6, $2, $1, $3)"""
_FINDING = """INSERT INTO billing_findings (key, tenant_id, kind, detail, seen_ms)
    VALUES ($3, $1, 'webhook_parked', jsonb_build_object('event', $3::text), $2)"""
_AUDIT = """INSERT INTO audit_log (tenant_id, id, actor, action, target, before, after)
    VALUES ($1, $2, $3, 'a.b', $3, jsonb_build_object('x', 1), jsonb_build_object('x', $3::text))"""
_LISTED = [{"subject": {"model": EVIL}, "difference": {"requests": 3}}]
_REPORT = json.dumps({"tenants": 1, "checks": {"rollup": {"drifts": 3, "not_done": None, "listed": _LISTED}}})
_POSTS = ("webhooks/replay", "webhooks/evt_1/replay", "findings/close", "tenants", "reconciliation/books/run")


@pytest.fixture
async def full(api: Api) -> UUID:
    """A tenant with something of everything, all of it named to do harm."""
    account = await api.books.account()
    tenant, at = account.tenant_id, now_ms()
    for query, *values in (
        ("UPDATE tenants SET name = $2 WHERE id = $1", tenant, EVIL),
        (_EVENT, tenant, at, EVIL, EVIL.encode() + b"\xff"),
        (_FINDING, tenant, at, EVIL),
        ("INSERT INTO reconciliations (id, ran_at, drifts, report) VALUES ($1, now(), 3, $2)", uuid7(), _REPORT),
        (_AUDIT, tenant, uuid7(), EVIL),
    ):
        await api.books.fetch(query, *values)
    return tenant


@pytest.mark.slow
async def test_every_page_stands_on_an_empty_database_and_on_a_full_one(api: Api, sign_in: SignIn, full: UUID) -> None:
    operator = await sign_in(await api.platform_admin())
    its = (f"/operator/tenants/{full}", f"/operator/tenants/{full}/wallet", f"/operator/mandates?tenant={full}")
    for path in (*PAGES, *its, "/operator/webhooks/evt_1", f"/operator/audit?tenant={full}"):
        page = await operator.get(path)
        assert page.status_code == 200, (path, page.text[:500])
        assert EVIL not in page.text, path
    assert "3 drifts" in (await operator.get("/operator/reconciliation")).text
    await api.books.fetch("TRUNCATE webhook_events, billing_findings, reconciliations, audit_log")
    for path in PAGES:
        assert (await operator.get(path)).status_code == 200, path


@pytest.mark.slow
async def test_nobody_else_gets_in(api: Api, sign_in: SignIn, full: UUID) -> None:
    admin = await sign_in(await api.books.account(scopes=[Scope.TENANT_ADMIN], tenant_id=full))
    for path in (*PAGES, f"/operator/tenants/{full}", f"/operator/tenants/{full}/wallet"):
        page = await admin.get(path)
        assert page.status_code == 403, path
        assert "You don't have access to this page" in page.text
    for path in (
        "/webhooks/replay",
        "/webhooks/evt_1/replay",
        "/findings/close",
        "/tenants",
        "/reconciliation/books/run",
        "/coupons",
        "/coupons/HELLO/end",
        f"/mandates/{full}/end",
        f"/tenants/{full}/wallet/credits",
        f"/tenants/{full}/wallet/refunds",
    ):
        assert (await admin.post(f"/operator{path}", data={"key": EVIL, "reason": "x"})).status_code == 403, path
    operator = await sign_in(await api.platform_admin())
    operator.headers["sec-fetch-site"] = "cross-site"
    assert (await operator.post("/operator/webhooks/evt_1/replay")).status_code == 403
    assert [row["state"] for row in await api.books.fetch("SELECT state FROM webhook_events")] == ["parked"]


@pytest.mark.slow
async def test_a_parked_event_is_replayed_and_a_finding_closed_with_a_reason(
    api: Api, sign_in: SignIn, full: UUID
) -> None:
    account = await api.platform_admin()
    operator = await sign_in(account)
    assert (await operator.get("/operator/webhooks/evt_2")).status_code == 404
    refused = await operator.post("/operator/findings/close", data={"key": EVIL, "reason": " "})
    assert (refused.status_code, "reason is needed" in refused.text) == (422, True)
    done = await operator.post("/operator/findings/close", data={"key": EVIL, "reason": "seen"})
    assert done.headers["location"] == "/operator/findings?said=closed"
    done = await operator.post("/operator/webhooks/replay")
    assert done.headers["location"] == "/operator/webhooks?said=replayed-all"
    assert "All parked events are queued" in (await operator.get(done.headers["location"])).text
    assert "<b>" not in (await operator.get("/operator/webhooks?said=<b>x")).text
    (event,) = await api.books.fetch("SELECT state, tries FROM webhook_events")
    assert (event["state"], event["tries"]) == ("received", 0)
    assert await api.audit(full) == ["finding.close", "webhook.replay"]


@pytest.mark.slow
async def test_a_tenant_is_made_with_its_first_key(api: Api, sign_in: SignIn) -> None:
    operator = await sign_in(await api.platform_admin())
    fields = {"slug": "acme", "name": EVIL, "user": "ada", "plan": ""}
    made = await submit(operator, "/operator/tenants", fields)
    assert made.status_code == 200
    assert EVIL not in made.text
    (tenant,) = await api.books.fetch("SELECT id, name FROM tenants WHERE slug = 'acme'")
    (key,) = await api.books.fetch("SELECT prefix, scopes FROM api_keys WHERE tenant_id = $1", tenant["id"])
    assert key["prefix"] in made.text
    assert set(key["scopes"]) == {"chat", "usage:read", "tenant:admin"}
    assert made.headers["cache-control"] == "no-store"
    for wrong in ({"slug": "acme"}, {"slug": "A B"}, {"name": " "}, {"user": ""}, {"plan": "nowhere"}):
        again = await submit(operator, "/operator/tenants", fields | {"slug": "other"} | wrong)
        assert again.status_code == 422, wrong
        assert 'role="alert"' in again.text
    assert len(await api.books.fetch("SELECT FROM tenants WHERE slug IN ('acme', 'other')")) == 1


async def test_a_check_is_left_to_a_worker(api: Api, sign_in: SignIn) -> None:
    operator = await sign_in(await api.platform_admin())
    for which in ("books", "razorpay"):
        assert (await operator.post(f"/operator/reconciliation/{which}/run")).status_code == 303
    assert (await operator.post("/operator/reconciliation/other/run")).status_code == 422
    rows = await api.books.fetch("SELECT entrypoint FROM pgqueuer.pgqueuer ORDER BY entrypoint")
    assert [row["entrypoint"] for row in rows] == ["billing-razorpay", "reconcile"]


async def test_a_tenants_page_leads_to_its_usage(api: Api, sign_in: SignIn, full: UUID) -> None:
    operator = await sign_in(await api.platform_admin())
    (row,) = await api.books.fetch("SELECT slug FROM tenants WHERE id = $1", full)
    assert f'href="/reports?tenant={row["slug"]}"' in (await operator.get(f"/operator/tenants/{full}")).text
    usage = await operator.get(f"/reports?tenant={row['slug']}")
    assert (usage.status_code, f'value="{row["slug"]}"' in usage.text) == (200, True)
