"""Members of an account: invited by a link, with a role, removed; and signed out everywhere."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from uuid import uuid4

import httpx2
import pytest

from core.identity.roles import Role
from core.tenancy.models import Member
from tests.pages.conftest import submit
from tests.pages.provider import AtProvider, target_of

_LINK = re.compile(r'<code class="secret" id="link">([^<]*)</code>')


def new_email() -> str:
    return f"i-{uuid4().hex[:12]}@acme.example"


async def invite(browser: httpx2.AsyncClient, email: str, role: str = "viewer") -> str:
    """The token of the link that the page shows once."""
    page = await submit(browser, "/account/members", {"email": email, "role": role})
    found = _LINK.search(page.text)
    assert found is not None, page.text
    assert _LINK.search((await browser.get("/account/members")).text) is None, "shown once"
    return unescape(found[1]).rpartition("/")[2]


@asynccontextmanager
async def signed_in(provider: AtProvider, member: Member) -> AsyncIterator[httpx2.AsyncClient]:
    async with provider.browser() as browser:
        assert (await provider.sign_in(browser, member.email)).status_code == 200
        yield browser


@pytest.mark.slow
async def test_a_colleague_is_invited_and_sees_the_usage(provider: AtProvider) -> None:
    owner, email = await provider.member(), new_email()
    async with signed_in(provider, owner) as at_owner, provider.browser() as browser:
        token = await invite(at_owner, f" {email.upper()} ")
        assert email in (await at_owner.get("/account/members")).text
        offered = await browser.get(f"/sign-in/invitation/{token}", headers={"sec-fetch-site": "none"})
        assert email in offered.text
        assert "as viewer" in offered.text
        page = await provider.sign_in(browser, email, invitation=token)
        assert (page.status_code, page.url.path) == (200, "/reports")
        for path in ("/v1/admin/reports/usage", "/reports?group_by=user", "/reports/requests", "/reports/live"):
            assert (await browser.get(path)).status_code == 200, path
        for path in ("/account", "/account/members", "/account/keys", "/operator", "/v1/admin/tenants"):
            assert (await browser.get(path)).status_code == 403, path
        assert 'href="/account"' not in page.text
        assert (await browser.get("/")).headers["location"] == "/reports"
    rows = await provider.api.books.fetch(
        "SELECT action FROM audit_log WHERE tenant_id = $1 AND action ~ 'invitation|member' ORDER BY id",
        owner.tenant_id,
    )
    assert [row["action"] for row in rows] == ["member.add", "invitation.create", "member.add", "invitation.accept"]


@pytest.mark.slow
async def test_a_link_works_once_for_one_address(provider: AtProvider) -> None:
    owner, email = await provider.member(), new_email()
    async with signed_in(provider, owner) as at_owner:
        token = await invite(at_owner, email)
    async with provider.browser() as another:
        answer = await provider.callback(another, "mallory@acme.example", invitation=token)
        assert (answer.status_code, "another address" in answer.text) == (403, True)
    async with provider.browser() as browser:
        assert (await provider.callback(browser, email, invitation=token)).status_code == 200
    async with provider.browser() as browser:
        answer = await provider.callback(browser, email, invitation=token)
        assert (answer.status_code, "was used" in answer.text) == (403, True)
        assert (await browser.get(f"/sign-in/invitation/{token}")).status_code == 404
        assert (await provider.callback(browser, email)).status_code == 200, "without the link, as the member it is"


@pytest.mark.slow
async def test_a_link_that_two_browsers_open_at_once(provider: AtProvider) -> None:
    owner, email = await provider.member(), new_email()
    async with signed_in(provider, owner) as at_owner:
        token = await invite(at_owner, email)

    async def accept() -> int:
        async with provider.browser() as browser:
            return (await provider.callback(browser, email, invitation=token)).status_code

    assert sorted(await asyncio.gather(*(accept() for _ in range(6)))) == [200, *[403] * 5]
    rows = await provider.api.books.fetch("SELECT FROM members WHERE email = $1", email)
    assert len(rows) == 1


@pytest.mark.slow
async def test_a_link_that_ended(provider: AtProvider) -> None:
    owner = await provider.member()
    async with signed_in(provider, owner) as at_owner, provider.browser() as browser:
        email = new_email()
        first, second = await invite(at_owner, email), await invite(at_owner, email)
        assert (await browser.get(f"/sign-in/invitation/{first}")).status_code == 404, "a new link replaces it"
        (row,) = await provider.api.books.fetch(
            "SELECT id FROM invitations WHERE email = $1 AND revoked_at IS NULL", email
        )
        page = await submit(at_owner, f"/account/invitations/{row['id']}/revoke")
        assert "Invitation revoked" in page.text
        assert (await provider.callback(browser, email, invitation=second)).status_code == 403
        third = await invite(at_owner, email)
        await provider.api.books.fetch("UPDATE invitations SET expires_at = now() WHERE email = $1", email)
        assert (await provider.callback(browser, email, invitation=third)).status_code == 403
        (kept,) = await provider.api.books.fetch("SELECT * FROM invitations WHERE id = $1", row["id"])
        assert second not in str(dict(kept)), "only its hash is kept"


@pytest.mark.slow
async def test_an_invitation_ends_with_whoever_made_it(provider: AtProvider) -> None:
    owner = await provider.member()
    other, email = await provider.member(tenant_id=owner.tenant_id), new_email()
    async with signed_in(provider, owner) as at_owner, signed_in(provider, other) as at_other:
        token = await invite(at_other, email)
        assert (await submit(at_owner, f"/account/members/{other.id}/role", {"role": "viewer"})).status_code == 200
        async with provider.browser() as browser:
            answer = await provider.callback(browser, email, invitation=token)
            assert (answer.status_code, "may do so no more" in answer.text) == (403, True)
        await submit(at_owner, f"/account/members/{other.id}/role", {"role": "owner"})
        await submit(at_owner, f"/account/members/{other.id}/remove")
        async with provider.browser() as browser:
            assert (await provider.callback(browser, email, invitation=token)).status_code == 403


@pytest.mark.slow
async def test_an_invitation_of_a_disabled_owner_makes_no_member(provider: AtProvider) -> None:
    owner, email = await provider.member(), new_email()
    async with signed_in(provider, owner) as at_owner:
        token = await invite(at_owner, email, "owner")
    disable = "UPDATE users SET disabled_at = {} WHERE id = (SELECT user_id FROM api_keys WHERE id = $1)"
    await provider.api.books.fetch(disable.format("now()"), owner.key_id)
    async with provider.browser() as browser:
        answer = await provider.callback(browser, email, invitation=token)
        assert (answer.status_code, "may do so no more" in answer.text) == (403, True)
    assert await provider.api.books.fetch("SELECT FROM members WHERE email = $1", email) == []
    await provider.api.books.fetch(disable.format("NULL"), owner.key_id)
    async with provider.browser() as browser:
        assert (await provider.callback(browser, email, invitation=token)).status_code == 200


@pytest.mark.slow
async def test_who_is_removed_is_out_at_once(provider: AtProvider) -> None:
    owner = await provider.member()
    admin = await provider.member(Role.ADMIN, tenant_id=owner.tenant_id)
    async with signed_in(provider, owner) as at_owner, signed_in(provider, admin) as at_admin:
        assert (await at_admin.get("/account/keys")).status_code == 200
        page = await submit(at_owner, f"/account/members/{admin.id}/remove")
        assert "Member removed" in page.text
        assert admin.email not in page.text
        assert (await at_admin.get("/v1/usage")).status_code == 401
        async with provider.browser() as browser:
            assert (await provider.callback(browser, admin.email)).status_code == 403
        token = await invite(at_owner, admin.email)
        async with provider.browser() as browser:
            assert (await provider.callback(browser, admin.email, invitation=token)).status_code == 200, "once more"


@pytest.mark.slow
async def test_a_role_applies_to_running_sessions(provider: AtProvider) -> None:
    owner = await provider.member()
    viewer = await provider.member(Role.VIEWER, tenant_id=owner.tenant_id)
    async with signed_in(provider, owner) as at_owner, signed_in(provider, viewer) as at_viewer:
        assert (await at_viewer.get("/account")).status_code == 403
        assert "Role changed" in (await submit(at_owner, f"/account/members/{viewer.id}/role", {"role": "admin"})).text
        assert (await at_viewer.get("/account")).status_code == 200
        refused = await at_owner.post(f"/account/members/{viewer.id}/role", data={"role": "operator"})
        assert refused.status_code == 403
        assert (await at_viewer.get("/operator")).status_code == 403


@pytest.mark.slow
async def test_only_owners_change_members(provider: AtProvider) -> None:
    owner = await provider.member()
    admin = await provider.member(Role.ADMIN, tenant_id=owner.tenant_id)
    async with signed_in(provider, admin) as browser:
        page = await browser.get("/account/members")
        assert owner.email in page.text
        assert "Create invitation" not in page.text
        assert "Owners of the account invite people" in page.text
        (key,) = await provider.api.books.fetch("SELECT key_id FROM members WHERE id = $1", owner.id)
        for path, data in (
            ("/account/members", {"email": new_email(), "role": "viewer"}),
            (f"/account/members/{owner.id}/role", {"role": "viewer"}),
            (f"/account/members/{owner.id}/remove", {}),
            (f"/account/key/{key['key_id']}/revoke", {}),
            (f"/account/key/{key['key_id']}/rotate", {"overlap": "0"}),
        ):
            answer = await browser.post(path, data=data)
            assert answer.status_code == 403, (path, answer.status_code)
    async with signed_in(provider, owner) as browser:
        assert (await browser.get("/account/members")).status_code == 200


@pytest.mark.slow
async def test_an_account_keeps_an_owner(provider: AtProvider) -> None:
    owner = await provider.member()
    async with signed_in(provider, owner) as browser:
        for what, data in (("remove", {}), ("role", {"role": "admin"})):
            page = await submit(browser, f"/account/members/{owner.id}/{what}", data)
            assert (page.status_code, "keeps one owner" in page.text) == (422, True), page.text
        other = await provider.member(tenant_id=owner.tenant_id)
        async with signed_in(provider, other) as at_other:
            both = await asyncio.gather(
                browser.post(f"/account/members/{other.id}/remove"),
                at_other.post(f"/account/members/{owner.id}/remove"),
            )
        assert {answer.status_code for answer in both} <= {303, 401}
        rows = await provider.api.books.fetch(
            "SELECT FROM members WHERE tenant_id = $1 AND removed_at IS NULL", owner.tenant_id
        )
        assert len(rows) == 1, "two owners who remove each other at once"


@pytest.mark.slow
async def test_whoever_leaves_is_signed_out(provider: AtProvider) -> None:
    owner = await provider.member()
    other = await provider.member(tenant_id=owner.tenant_id)
    async with signed_in(provider, other) as browser:
        page = await submit(browser, f"/account/members/{other.id}/remove")
        assert "You left the account" in page.text
        assert "naka_session" not in browser.cookies


@pytest.mark.slow
async def test_a_member_has_no_secret_to_rotate(provider: AtProvider) -> None:
    owner = await provider.member()
    viewer = await provider.member(Role.VIEWER, tenant_id=owner.tenant_id)
    async with signed_in(provider, owner) as browser:
        page = await submit(browser, f"/account/key/{viewer.key_id}/rotate", {"overlap": "0"})
        assert (page.status_code, "no secret to rotate" in page.text) == (422, True)
        await submit(browser, f"/account/key/{viewer.key_id}/revoke")
        assert viewer.email not in (await browser.get("/account/members")).text, "its key was all it had"
    async with provider.browser() as browser:
        assert (await provider.callback(browser, viewer.email)).status_code == 403


@pytest.mark.slow
async def test_signed_out_everywhere(provider: AtProvider) -> None:
    ada, bob = await provider.member(), await provider.member()
    async with (
        signed_in(provider, ada) as one,
        signed_in(provider, ada) as two,
        signed_in(provider, bob) as other,
    ):
        assert "2 browsers are signed in" in (await one.get("/session")).text
        page = await submit(one, "/session/end-all")
        assert "signed out in every browser" in page.text
        assert "naka_session" not in one.cookies
        assert (await two.get("/v1/usage")).status_code == 401
        assert (await other.get("/v1/usage")).status_code == 200
        assert (await provider.sign_in(one, ada.email)).status_code == 200


async def test_a_key_too_signs_out_everywhere(provider: AtProvider) -> None:
    account = await provider.api.books.account()
    async with provider.browser() as one, provider.browser() as two:
        for browser in (one, two):
            await browser.post("/sign-in", data={"key": account.key})
        assert (await two.post("/chat", json={"message": ""})).status_code == 422, "it is in the cache"
        await one.post("/session/end-all")
        assert (await two.post("/chat", json={"message": ""})).status_code == 401
        assert (await two.get("/v1/usage", headers=account.headers)).status_code == 200, "the key itself is good"


@pytest.mark.slow
async def test_one_person_in_two_accounts(provider: AtProvider) -> None:
    first, email = await provider.member(), new_email()
    here = await provider.member(Role.VIEWER, email)
    there = await provider.member(Role.ADMIN, email)
    async with signed_in(provider, here) as browser, signed_in(provider, first) as stranger:
        page = await browser.get("/session")
        assert "Your other accounts" in page.text
        before = browser.cookies["naka_session"]
        assert (await submit(browser, f"/session/switch/{there.tenant_id}")).status_code == 200
        assert (await browser.get("/account")).status_code == 200
        assert browser.cookies["naka_session"] != before
        refused = await stranger.post(f"/session/switch/{there.tenant_id}")
        assert refused.status_code == 403


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"email": "ada", "role": "viewer"}, "Enter an email address"),
        ({"email": "a@b.example, c@d.example", "role": "viewer"}, "Enter an email address"),
        ({"email": "ada@acme.example", "role": "king"}, "Choose a role"),
    ],
)
async def test_a_wrong_form(provider: AtProvider, form: dict[str, str], said: str) -> None:
    async with signed_in(provider, await provider.member()) as browser:
        page = await submit(browser, "/account/members", form)
        assert (page.status_code, said in page.text) == (422, True)


async def test_somebody_erased_leaves_no_address(provider: AtProvider) -> None:
    owner, email = await provider.member(), new_email()
    viewer = await provider.member(Role.VIEWER, email, tenant_id=owner.tenant_id)
    admin = await provider.api.tenant_admin(owner.tenant_id)
    (row,) = await provider.api.books.fetch("SELECT user_id FROM api_keys WHERE id = $1", viewer.key_id)
    async with provider.browser() as browser:
        await provider.sign_in(browser, email)
        exported = await browser.get(f"/v1/admin/users/{row['user_id']}/export", headers=admin.headers)
        assert exported.json()["members"][0]["email"] == email
        erased = await browser.post(f"/v1/admin/users/{row['user_id']}/erase", headers=admin.headers)
        assert erased.status_code == 200, erased.text
        assert (await browser.get("/v1/usage")).status_code == 401
        for table in ("members", "users", "api_keys", "audit_log", "invitations"):
            rows = await provider.api.books.fetch(
                f"SELECT t::text FROM {table} t WHERE tenant_id = $1", owner.tenant_id
            )
            assert email not in str([dict(each) for each in rows]), table
        assert (await provider.callback(browser, email)).status_code == 403


def test_where_the_refresh_leads() -> None:
    page = httpx2.Response(200, text='<meta http-equiv="refresh" content="0;url=/a?b=1&amp;c=2">')
    assert target_of(page) == "/a?b=1&c=2"
