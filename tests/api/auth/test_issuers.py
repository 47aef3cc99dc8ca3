"""JWTs of registered issuers over HTTP: registering, acting, and every way to be refused."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from api.app import create_app
from core.settings import Settings
from tests.api.conftest import Api
from tests.core.identity.idp import AUDIENCE, ISSUER, claims, new_key, pem_of, sign
from tests.harness import Account
from tests.pages.conftest import sign_in as sign_in  # noqa: PLC0414 - a fixture
from tests.pages.conftest import submit

KEY = new_key("RS256")
PEM = pem_of(KEY)
NEW = {"issuer": ISSUER, "audience": AUDIENCE, "verification_keys": PEM}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
async def admin(api: Api) -> Account:
    return await api.tenant_admin()


async def register(api: Api, admin: Account, **changed: Any) -> dict[str, Any]:
    answer = await api.call(admin, "POST", f"/tenants/{admin.tenant_id}/issuers", json={**NEW, **changed}, expect=201)
    return dict(answer.json())


async def status(api: Api, token: str, path: str = "/v1/usage") -> int:
    return (await api.http.get(path, headers=bearer(token))).status_code


@pytest.fixture
async def other_process(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(settings)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://naka.test") as http,
    ):
        yield http


async def test_an_issuer_from_first_to_last(api: Api, admin: Account, other_process: httpx2.AsyncClient) -> None:
    made = await register(api, admin)
    assert made["scopes"] == ["chat", "usage:read"]
    listed = await api.call(admin, "GET", f"/tenants/{admin.tenant_id}/issuers", expect=200)
    assert [each["id"] for each in listed.json()] == [made["id"]]

    token = sign(KEY, "RS256")
    for http in (api.http, other_process):
        assert (await http.get("/v1/usage", headers=bearer(token))).status_code == 200
        assert (await http.get("/v1/limits", headers={"x-api-key": token})).status_code == 200
    (user,) = await api.books.fetch("SELECT external_id FROM users WHERE external_id LIKE 'ada%'")
    assert user["external_id"] == "ada@acme.example"

    await api.call(admin, "DELETE", f"/issuers/{made['id']}", expect=204)
    await api.call(admin, "DELETE", f"/issuers/{made['id']}", expect=204)
    for http in (api.http, other_process):
        assert (await http.get("/v1/usage", headers=bearer(token))).status_code == 401
    assert (await api.call(admin, "GET", f"/tenants/{admin.tenant_id}/issuers")).json() == []
    audit = await api.audit(admin.tenant_id)
    named = [each for each in audit if not each.startswith("user.")]
    # Two entries of one transaction may have ids of the same millisecond, in any order.
    assert (set(named[:2]), set(named[2:])) == ({"key.create", "issuer.create"}, {"key.revoke", "issuer.remove"})
    assert len(named) == 4


async def test_a_token_is_a_user_and_never_an_admin(api: Api, admin: Account) -> None:
    await register(api, admin)
    token = sign(KEY, "RS256", claims(scope="tenant:admin platform:admin", roles=["owner"]))
    for path in ("/v1/admin/tenants", f"/v1/admin/tenants/{admin.tenant_id}/users", "/v1/admin/reports/usage"):
        assert await status(api, token, path) == 403
    answer = await api.http.post("/v1/tokens", headers=bearer(token), json={"user": "eve", "ttl_s": 60})
    assert answer.status_code == 403
    answer = await api.http.post("/chat", headers=bearer(token) | {"naka-user": "eve"}, json={"message": "hi"})
    assert answer.status_code == 403


async def test_every_refusal(api: Api, admin: Account) -> None:
    now_s = int(time.time())
    made = await register(api, admin)
    good = sign(KEY, "RS256")
    header, payload, signature = good.split(".")
    refused = {
        "expired": sign(KEY, "RS256", claims(exp=now_s - 31)),
        "no expiry": sign(KEY, "RS256", claims(exp=None)),
        "not yet": sign(KEY, "RS256", claims(nbf=now_s + 60)),
        "from the future": sign(KEY, "RS256", claims(iat=now_s + 60)),
        "wrong audience": sign(KEY, "RS256", claims(aud="other")),
        "wrong issuer": sign(KEY, "RS256", claims(iss="https://other.example/")),
        "wrong key": sign(new_key("RS256"), "RS256"),
        "wrong algorithm": sign(new_key("ES256"), "ES256"),
        "no signature": f"{header}.{payload}.",
        "a payload of another": f"{header}.{sign(KEY, 'RS256', claims(sub='eve')).split('.')[1]}.{signature}",
        "alg none": f"eyJhbGciOiJub25lIn0.{payload}.",
        "no user": sign(KEY, "RS256", claims(sub=None)),
    }
    for name, token in refused.items():
        answer = await api.http.get("/v1/usage", headers=bearer(token))
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), name
        answer = await api.http.post("/chat", headers=bearer(token), json={"message": "hi"})
        assert answer.status_code == 401, name
    within_the_leeway = sign(KEY, "RS256", claims(exp=now_s - 20, nbf=now_s + 20, iat=now_s + 20))
    assert await status(api, within_the_leeway) == 200

    (user,) = await api.books.fetch("SELECT id FROM users WHERE external_id = 'ada@acme.example'")
    await api.books.fetch("UPDATE users SET disabled_at = now() WHERE id = $1", user["id"])
    answer = await api.http.get("/v1/usage", headers=bearer(good))
    assert (answer.status_code, answer.json()["code"]) == (403, "user_disabled")
    await api.books.fetch("UPDATE users SET disabled_at = NULL WHERE id = $1", user["id"])
    await api.call(admin, "DELETE", f"/keys/{made['key_id']}", expect=204)
    assert await status(api, good) == 401, "its key was revoked"


async def test_an_issuer_of_another_tenant_is_taken_and_unknown(api: Api, admin: Account) -> None:
    other = await api.tenant_admin()
    made = await register(api, other)
    path = f"/tenants/{admin.tenant_id}/issuers"
    answer = await api.call(admin, "POST", path, json=NEW, expect=409)
    assert str(other.tenant_id) not in answer.text
    await api.call(admin, "DELETE", f"/issuers/{made['id']}", expect=404)
    await api.call(admin, "POST", f"/tenants/{other.tenant_id}/issuers", json=NEW, expect=404)
    assert await status(api, sign(KEY, "RS256")) == 200


async def test_a_key_that_may_not_chat_registers_no_issuer_that_may(api: Api) -> None:
    from core.tenancy.principal import Scope  # noqa: PLC0415

    admin = await api.books.account(scopes=[Scope.TENANT_ADMIN])
    await api.call(admin, "POST", f"/tenants/{admin.tenant_id}/issuers", json=NEW, expect=403)


async def test_an_identity_provider_by_the_page(api: Api, admin: Account, sign_in: Any) -> None:
    browser = await sign_in(admin)
    wrong = {**NEW, "verification_keys": "ftp://login.example/jwks", "user_claim": "sub", "tag_claims": "metadata.team"}
    refused = await submit(browser, "/account/issuers", wrong)
    assert refused.status_code == 422
    assert "One claim a line" in refused.text
    refused = await submit(browser, "/account/issuers", {**wrong, "tag_claims": ""})
    assert refused.status_code == 422
    made = await browser.post("/account/issuers", data={**wrong, **NEW, "tag_claims": "metadata.team = team\r\n"})
    assert made.headers["location"] == "/account/keys?said=issuer#issuers"
    page = (await browser.get("/account/keys?said=issuer")).text
    assert ISSUER in page
    assert "Identity provider added" in page
    token = sign(KEY, "RS256", claims(metadata={"team": "search"}))
    assert await status(api, token) == 200
    (row,) = await api.books.fetch("SELECT id, tag_claims FROM issuers")
    assert row["tag_claims"] == '{"metadata.team": "team"}'
    again = await submit(browser, "/account/issuers", {**NEW, "user_claim": "sub"})
    assert again.status_code == 409
    gone = await browser.post(f"/account/issuers/{row['id']}/remove")
    assert gone.headers["location"] == "/account/keys?said=removed#issuers"
    assert await status(api, token) == 401
