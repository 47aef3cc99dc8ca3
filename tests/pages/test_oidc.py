"""People sign in at the identity provider: who gets in, as whom, and every way in which an answer is refused."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from api.auth.oidc import ProviderUnavailable
from core.settings import Settings
from sandbox.oidc.faults import Fault
from tests.api.conftest import Api
from tests.pages.conftest import ORIGIN
from tests.pages.provider import (
    FROM_PROVIDER,
    ISSUER,
    AtProvider,
    person,
    query_of,
    site,
    target_of,
    with_provider,
)


async def test_a_member_signs_in(provider: AtProvider) -> None:
    ada = await provider.member()
    async with provider.browser() as browser:
        assert "Sign in with Example" in (await browser.get("/sign-in")).text
        answer = await provider.callback(browser, ada.email, next="/account/members")
        assert target_of(answer) == "/account/members"
        cookies = answer.headers.get_list("set-cookie")
        assert [each.partition("=")[0] for each in cookies] == ["naka_session", "naka_sign_in"]
        assert "SameSite=strict" in cookies[0]
        assert "Max-Age=0" in cookies[1]
        page = await browser.get("/account/members")
        assert page.status_code == 200
        assert ada.email in page.text
    (row,) = await provider.api.books.fetch("SELECT * FROM members WHERE id = $1", ada.id)
    assert (row["oidc_issuer"], row["oidc_subject"]) == (ISSUER, person(ada.email).subject)
    (session,) = await provider.api.books.fetch("SELECT * FROM web_sessions WHERE key_id = $1", ada.key_id)
    assert session["ended_at"] is None


async def test_what_is_asked_of_the_provider(provider: AtProvider) -> None:
    async with provider.browser() as browser:
        first, second = query_of(await provider.begin(browser)), query_of(await provider.begin(browser))
    assert first["redirect_uri"] == f"{ORIGIN}/sign-in/oidc/callback"
    assert (first["response_type"], first["code_challenge_method"]) == ("code", "S256")
    assert first["scope"] == "openid email profile"
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) >= 43
        assert first[name] != second[name]


async def test_the_subject_identifies_who_signed_in_once(provider: AtProvider) -> None:
    ada = await provider.member()
    async with provider.browser() as browser:
        await provider.sign_in(browser, ada.email)
    provider.provider.know([person(ada.email, claims={"sub": "somebody-else"})])
    async with provider.browser() as browser:
        answer = await provider.callback(browser, ada.email)
        assert answer.status_code == 403, "the address was given to another person meanwhile"
        assert "naka_session" not in browser.cookies
    provider.provider.know([person(ada.email, claims={"email": "new-name@acme.example"})])
    async with provider.browser() as browser:
        assert (await provider.sign_in(browser, ada.email)).status_code == 200, "and may have another address since"


async def test_strangers_are_told_what_to_do(provider: AtProvider) -> None:
    async with provider.browser() as browser:
        answer = await provider.callback(browser, "nobody@acme.example")
        assert answer.status_code == 403
        assert "Ask an owner of your account for an invitation" in answer.text
        assert dict(browser.cookies) == {}


@pytest.mark.slow
@pytest.mark.parametrize("claims", [{"email_verified": False}, {"email_verified": None}, {"email": "ada"}, {"sub": ""}])
async def test_only_a_verified_address_names_somebody(provider: AtProvider, claims: dict[str, Any]) -> None:
    ada = await provider.member()
    provider.provider.know([person(ada.email)])
    provider.provider.faults.ordered = [_fault(claims=claims)]
    async with provider.browser() as browser:
        answer = await provider.callback(browser, ada.email)
        assert answer.status_code in (400, 403)
        assert dict(browser.cookies) == {}


def _fault(endpoint: str = "token", **what: Any) -> Fault:
    return Fault(endpoint=endpoint, **what)


@pytest.mark.parametrize(
    "fault",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "unknown"},
        {"alg": "forged"},
        {"claims": {"iss": "http://another.test"}},
        {"claims": {"aud": "another-client"}},
        {"claims": {"aud": ["another-client"], "azp": "naka"}},
        {"claims": {"aud": ["naka", "another-client"], "azp": "another-client"}},
        {"claims": {"nonce": "another"}},
        {"claims": {"nonce": None}},
        {"claims": {"exp": 1_000_000_000}},
        {"claims": {"exp": None}},
        {"claims": {"iat": 4_000_000_000}},
        {"claims": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
        {"claims": {"sub": None}},
    ],
    ids=str,
)
async def test_a_token_that_does_not_hold(provider: AtProvider, fault: dict[str, Any]) -> None:
    ada = await provider.member()
    provider.provider.faults.ordered = [_fault(**fault)]
    async with provider.browser() as browser:
        answer = await provider.callback(browser, ada.email)
        assert answer.status_code == 400, answer.text
        assert "did not confirm this sign-in" in answer.text
        assert dict(browser.cookies) == {}
        assert (await provider.sign_in(browser, ada.email)).status_code == 200, "the next one is sound"


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        {"endpoint": "discovery", "status": 500},
        {"endpoint": "discovery", "location": "http://127.0.0.1/elsewhere"},
        {"endpoint": "discovery", "bytes": 1_000_000},
        {"endpoint": "keys", "status": 503},
        {"endpoint": "keys", "bytes": 1_000_000},
        {"endpoint": "token", "bytes": 1_000_000},
        {"endpoint": "token", "bytes": 10},
        {"endpoint": "token", "location": "http://127.0.0.1/elsewhere"},
    ],
    ids=str,
)
async def test_a_provider_that_is_away_or_hostile(
    provider: AtProvider, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth.oidc._FAILED_S", 0)
    ada = await provider.member()
    provider.provider.faults.ordered = [_fault(**fault)]
    async with provider.browser() as browser:
        answer = await browser.post("/sign-in/oidc", data={"next": "/account"})
        if answer.status_code == 303:
            answer = await browser.get(answer.headers["location"])
        else:
            answer = await browser.get(await provider.choose(target_of(answer), ada.email), headers=FROM_PROVIDER)
        assert answer.status_code == 503, answer.text
        assert "does not answer" in answer.text
        assert 'value="/account"' in answer.text
        assert "naka_session" not in browser.cookies
        assert (await provider.sign_in(browser, ada.email)).status_code == 200, "and it is back"


async def test_all_who_wait_share_one_fetch(provider: AtProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    oidc, faults = provider.api.app.state.runtime.oidc, provider.provider.faults
    faults.ordered = [_fault("discovery", delay_s=0.2, times=100)]
    await asyncio.gather(*(oidc.begin(f"{ORIGIN}/back") for _ in range(10)))
    assert faults.ordered[0].times == 99

    monkeypatch.setattr("api.auth.oidc._METADATA_S", 0)
    monkeypatch.setattr("api.auth.oidc._TIMEOUT_S", 0.3)
    faults.ordered = [hanging] = [_fault("discovery", delay_s=2, times=100)]
    found = await asyncio.gather(*(oidc.begin(f"{ORIGIN}/back") for _ in range(10)), return_exceptions=True)
    with pytest.raises(ProviderUnavailable):  # and at once
        await oidc.begin(f"{ORIGIN}/back")
    assert {type(each) for each in found} == {ProviderUnavailable}
    assert hanging.times == 99, "one fetch for all, and its failure is remembered"
    monkeypatch.setattr("api.auth.oidc._FAILED_S", 0)
    faults.ordered = []
    await oidc.begin(f"{ORIGIN}/back")


@pytest.mark.parametrize("alg", ["none", "HS256", ""])
async def test_a_provider_without_an_accepted_algorithm(provider: AtProvider, alg: str) -> None:
    ada = await provider.member()
    async with provider.browser() as browser:
        url = await provider.begin(browser)
        metadata = await provider.api.app.state.runtime.oidc._metadata.get(3600)
        metadata["id_token_signing_alg_values_supported"] = ["HS256", "none"]
        provider.provider.faults.ordered = [_fault(alg=alg)]
        answer = await browser.get(await provider.choose(url, ada.email), headers=FROM_PROVIDER)
        assert answer.status_code == 400, answer.text
        assert "naka_session" not in browser.cookies


@pytest.mark.slow
async def test_keys_that_were_rotated(provider: AtProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await provider.member()
    async with provider.browser() as browser:
        await provider.sign_in(browser, ada.email)
        provider.provider.keys.rotate(keep=False)
        assert (await provider.callback(browser, ada.email)).status_code == 400, "asked for again at a bounded rate"
        monkeypatch.setattr("api.auth.oidc._KEYS_EVERY_S", 0)
        assert (await provider.callback(browser, ada.email)).status_code == 200


@pytest.mark.slow
async def test_an_answer_is_good_once_and_in_one_browser(provider: AtProvider) -> None:
    ada = await provider.member()
    async with provider.browser() as browser, provider.browser() as other:
        back = await provider.choose(await provider.begin(browser), ada.email)
        stolen = await other.get(back, headers=FROM_PROVIDER)
        assert (stolen.status_code, dict(other.cookies)) == (400, {}), "login CSRF: another browser gets no session"
        assert (await browser.get(back, headers=FROM_PROVIDER)).status_code == 400, "and nobody can use it now"

        back = await provider.choose(await provider.begin(browser), ada.email)
        assert (await browser.head(back, headers=FROM_PROVIDER)).status_code == 503, "a look uses nothing up"
        assert (await browser.get(back, headers=FROM_PROVIDER)).status_code == 200
        again = await browser.get(back, headers=FROM_PROVIDER)
        assert (again.status_code, "Start again" in again.text) == (400, True), "the back button"
        assert (await browser.get("/account")).status_code == 200, "and the session goes on"


@pytest.mark.parametrize(
    "changed", [{"state": ""}, {"state": "x" * 43}, {"code": ""}, {"code": "made-up"}, {"iss": "http://another.test"}]
)
async def test_an_answer_that_was_changed(provider: AtProvider, changed: dict[str, str]) -> None:
    ada = await provider.member()
    async with provider.browser() as browser:
        back = await provider.choose(await provider.begin(browser), ada.email)
        answer = await browser.get("/sign-in/oidc/callback", params=query_of(back) | changed, headers=FROM_PROVIDER)
        assert answer.status_code == 400
        assert "naka_session" not in browser.cookies


async def test_a_refusal_at_the_provider(provider: AtProvider) -> None:
    async with provider.browser() as browser:
        url = await provider.begin(browser)
        answer = await provider.http.post(url, data={"denied": "yes"})
        page = await browser.get(answer.headers["location"], headers=FROM_PROVIDER)
        assert page.status_code == 400
        assert "access_denied" not in page.text, "nothing of the address is shown"


async def test_only_our_own_pages_begin_a_sign_in(provider: AtProvider) -> None:
    async with provider.browser() as browser:
        for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "", "origin": "https://evil.example"}):
            browser.headers.update(headers)
            assert (await browser.post("/sign-in/oidc")).status_code == 403
        assert dict(browser.cookies) == {}


@pytest.mark.parametrize("wanted", ["//evil.example/x", "/\\evil.example", "https://evil.example", "/sign-out"])
async def test_it_ends_on_this_site(provider: AtProvider, wanted: str) -> None:
    ada = await provider.member()
    async with provider.browser() as browser:
        assert target_of(await provider.callback(browser, ada.email, next=wanted)) == "/account"


@pytest.mark.slow
async def test_the_session_before_ends(provider: AtProvider) -> None:
    ada, key = await provider.member(), await provider.api.books.account()
    async with provider.browser() as browser, provider.browser() as other:
        await browser.post("/sign-in", data={"key": key.key})
        before = browser.cookies["naka_session"]
        await provider.sign_in(browser, ada.email)
        assert browser.cookies["naka_session"] != before, "no session is taken over (fixation)"
        other.cookies.set("naka_session", before)
        assert (await other.get("/v1/usage")).status_code == 401


async def test_https_has_cookies_of_its_own(provider: AtProvider) -> None:
    ada = await provider.member()
    async with provider.browser("https://naka.test") as browser:
        answer = await browser.post("/sign-in/oidc")
        (cookie,) = answer.headers.get_list("set-cookie")
        assert cookie.startswith("__Host-naka-sign-in=")
        assert "; Secure" in cookie
        assert "SameSite=lax" in cookie
        assert "HttpOnly" in cookie
        assert (await provider.sign_in(browser, ada.email)).status_code == 200
        assert "__Host-naka" in browser.cookies


async def test_starts_are_bounded(provider: AtProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.sign_in_state._STARTS", 0)
    async with provider.browser() as browser:
        answer = await browser.post("/sign-in/oidc")
        page = await browser.get(answer.headers["location"])
        assert page.status_code == 429
        assert "Too many sign-ins" in page.text


async def test_a_count_of_starts_always_ends(provider: AtProvider) -> None:
    redis, state = provider.api.app.state.runtime.redis, provider.api.app.state.runtime.sign_in_state
    key, address = "naka:sign-in:starts:192.0.2.7", "192.0.2.7"
    await redis.set(key, 7)  # as if a process had ended before it said when the count ends
    await state.admit(address)
    assert 0 < await redis.ttl(key) <= 60
    await redis.expire(key, 20)
    await state.admit(address)
    assert (await redis.get(key), await redis.ttl(key) <= 20) == (b"9", True), "the minute does not begin again"
    await redis.delete(key)


async def test_no_log_line_has_the_token_of_a_link(
    provider: AtProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("api.pages.members.provider.invitations.read_link", fail)
    transport = httpx2.ASGITransport(app=provider.api.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=FROM_PROVIDER) as browser:
        assert (await browser.get("/sign-in/invitation/very-secret")).status_code == 500
    assert "request_failed" in caplog.text
    assert "very-secret" not in caplog.text


async def test_without_a_provider_there_are_no_such_pages(api: Api) -> None:
    transport = httpx2.ASGITransport(app=api.app)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers={"sec-fetch-site": "none"}) as browser:
        assert "Sign in with" not in (await browser.get("/sign-in")).text.replace("Sign in with your", "")
        assert (await browser.post("/sign-in/oidc")).status_code == 404
        for path in ("/sign-in/oidc/callback?code=x&state=y", "/sign-in/invitation/x"):
            assert (await browser.get(path)).status_code == 404


async def test_only_some_domains(settings: Settings) -> None:
    async with site(with_provider(settings, oidc_allowed_domains="acme.example, @b.example")) as provider:
        inside, outside = await provider.member(), await provider.member(email=f"x-{uuid4().hex[:8]}@acme.example.com")
        async with provider.browser() as browser:
            assert (await provider.callback(browser, outside.email)).status_code == 403
            assert (await provider.callback(browser, inside.email)).status_code == 200


@pytest.mark.slow
async def test_a_role_by_claim(settings: Settings) -> None:
    changed = {"oidc_role_claim": "groups", "oidc_tenant_claim": "org", "oidc_operator_tenant": "no-tenant"}
    async with site(with_provider(settings, **changed)) as provider:
        books, email = provider.api.books, f"c-{uuid4().hex[:8]}@acme.example"
        first, second = await books.account(), await books.account()
        slugs = {row["id"]: row["slug"] for row in await books.fetch("SELECT id, slug FROM tenants")}

        async def arrives(groups: Any, tenant: UUID | None, invited: str = "") -> tuple[int, list[tuple[UUID, str]]]:
            claims = {"groups": groups, "org": None if tenant is None else slugs[tenant]}
            provider.provider.know([person(email, claims=claims)])
            async with provider.browser() as browser:
                form = {"invitation": invited} if invited else {}
                status = (await provider.callback(browser, email, **form)).status_code
            rows = await books.fetch("SELECT * FROM members WHERE email = $1 AND removed_at IS NULL ORDER BY id", email)
            return status, [(row["tenant_id"], row["role"]) for row in rows]

        assert await arrives(["staff"], first.tenant_id) == (403, [])
        assert await arrives("owner", None) == (403, [])
        assert await arrives(["viewer", "admin", "staff"], first.tenant_id) == (200, [(first.tenant_id, "admin")])
        assert await arrives("viewer", first.tenant_id) == (200, [(first.tenant_id, "viewer")]), "less from now on"
        assert await arrives("viewer", second.tenant_id) == (200, [(second.tenant_id, "viewer")]), "and elsewhere"
        assert await arrives("operator", second.tenant_id) == (403, []), "which takes away what was given"
        assert await arrives(["owner"], first.tenant_id) == (200, [(first.tenant_id, "owner")])
        assert await arrives([], first.tenant_id) == (403, [])

        invited = "A" * 43
        assert await arrives("owner", first.tenant_id) == (200, [(first.tenant_id, "owner")])
        assert await arrives("viewer", first.tenant_id, invited) == (403, [(first.tenant_id, "viewer")])
        assert await arrives([], first.tenant_id, invited) == (403, []), "a dead link keeps nobody in"
        taken, another = await provider.member(email=email, tenant_id=second.tenant_id), "somebody-else"
        await books.fetch(
            "UPDATE members SET oidc_issuer = $1, oidc_subject = $2 WHERE id = $3", ISSUER, another, taken.id
        )
        theirs = (second.tenant_id, "owner")
        assert await arrives("admin", first.tenant_id) == (200, [theirs, (first.tenant_id, "admin")])
        assert await arrives("viewer", second.tenant_id) == (403, [theirs]), "nor does a name that is taken"
        await provider.api.books.fetch("UPDATE api_keys SET revoked_at = now() WHERE id = $1", taken.key_id)
        keys = await books.fetch("SELECT revoked_at FROM api_keys WHERE name = $1", f"member {email}")
        assert all(row["revoked_at"] for row in keys)


@pytest.mark.slow
async def test_an_operator_by_claim_is_of_the_operators_tenant(api: Api, settings: Settings) -> None:
    operators = await api.books.account()
    ((slug,),) = await api.books.fetch("SELECT slug FROM tenants WHERE id = $1", operators.tenant_id)
    changed = {"oidc_role_claim": "role", "oidc_tenant_claim": "org", "oidc_operator_tenant": slug}
    async with site(with_provider(settings, **changed)) as provider:
        provider.provider.know([person("root@acme.example", claims={"role": "operator", "org": slug})])
        async with provider.browser() as browser:
            page = await provider.sign_in(browser, "root@acme.example")
            assert (page.status_code, page.url.path) == (200, "/operator")


async def test_production_goes_nowhere_without_https(settings: Settings) -> None:
    settings = with_provider(settings, naka_env="production", public_url="https://naka.test")
    async with site(settings) as provider, provider.browser("https://naka.test") as browser:
        answer = await browser.post("/sign-in/oidc")
        assert (await browser.get(answer.headers["location"])).status_code == 503, "its metadata names http"


async def test_in_production_the_provider_leads_back_to_the_public_url(settings: Settings) -> None:
    settings = with_provider(settings, naka_env="production", public_url="https://naka.test")
    async with site(settings) as provider, provider.browser("https://elsewhere.test") as browser:
        provider.api.app.state.runtime.oidc._checked = str  # the simulated provider speaks http
        asked = query_of(target_of(await browser.post("/sign-in/oidc")))
        assert asked["redirect_uri"] == "https://naka.test/sign-in/oidc/callback", "whatever host was named"
