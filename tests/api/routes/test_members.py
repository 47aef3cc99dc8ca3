"""Members and invitations over the API: owners and operators change them, and nobody gives more than they have."""

from uuid import UUID, uuid4

import pytest

from api.services.context import ServiceContext
from api.services.members.members import change_role, remove_member
from core.identity.members import NewMember, add_member, principal_of
from core.identity.roles import SCOPES, Role
from core.tenancy.accounts import create_key, find_user
from core.tenancy.audit import Actor
from core.tenancy.models import Member
from core.tenancy.principal import Forbidden, Scope, Unauthenticated
from tests.api.conftest import Api
from tests.harness import ACTOR, Account

OWNER = sorted(SCOPES[Role.OWNER])


async def member(api: Api, tenant_id: UUID, role: Role) -> Member:
    async with api.books.database.session() as session:
        new = NewMember(f"m-{uuid4().hex[:12]}@acme.example", role)
        return await add_member(session, ACTOR, tenant_id, new, live=False)


async def owner(api: Api) -> Account:
    """A key with the rights of an owner; members have such keys, without a secret."""
    return await api.books.account(scopes=OWNER)


@pytest.mark.slow
async def test_an_owner_manages_members(api: Api) -> None:
    boss = await owner(api)
    at = f"/tenants/{boss.tenant_id}"
    await member(api, boss.tenant_id, Role.OWNER)
    made = await api.call(
        boss, "POST", f"{at}/invitations", json={"email": "Ada@Acme.example", "role": "admin", "days": 2}, expect=201
    )
    assert made.json()["email"] == "ada@acme.example"
    assert made.json()["link"].startswith("/sign-in/invitation/")
    listed = (await api.call(boss, "GET", f"{at}/invitations", expect=200)).json()["items"]
    assert [one["id"] for one in listed] == [made.json()["id"]]
    assert "link" not in listed[0]
    await api.call(boss, "DELETE", f"{at}/invitations/{made.json()['id']}", expect=204)
    await api.call(boss, "DELETE", f"{at}/invitations/{made.json()['id']}", expect=404)
    assert (await api.call(boss, "GET", f"{at}/invitations")).json()["items"] == []

    one = await member(api, boss.tenant_id, Role.VIEWER)
    changed = await api.call(boss, "PUT", f"{at}/members/{one.id}/role", json={"role": "admin"}, expect=200)
    assert changed.json()["role"] == "admin"
    (key,) = await api.books.fetch("SELECT scopes FROM api_keys WHERE id = $1", one.key_id)
    assert set(key["scopes"]) == SCOPES[Role.ADMIN]
    await api.call(boss, "DELETE", f"{at}/members/{one.id}", expect=204)
    await api.call(boss, "DELETE", f"{at}/members/{one.id}", expect=404)
    emails = [each["email"] for each in (await api.call(boss, "GET", f"{at}/members")).json()["items"]]
    assert one.email not in emails
    first, second, third, *last = await api.audit(boss.tenant_id)
    assert (first, second, third) == ("invitation.create", "invitation.revoke", "member.change")
    assert sorted(last) == ["key.revoke", "member.remove"]  # of one transaction, so perhaps of one millisecond


async def test_an_admin_only_looks(api: Api) -> None:
    admin = await api.tenant_admin()
    at, one = f"/tenants/{admin.tenant_id}", await member(api, admin.tenant_id, Role.VIEWER)
    assert (await api.call(admin, "GET", f"{at}/members", expect=200)).json()["items"][0]["id"] == str(one.id)
    await api.call(admin, "GET", f"{at}/invitations", expect=200)
    for method, path, body in (
        ("POST", "/invitations", {"email": "x@acme.example", "role": "viewer"}),
        ("PUT", f"/members/{one.id}/role", {"role": "admin"}),
        ("DELETE", f"/members/{one.id}", None),
        ("DELETE", f"/invitations/{one.id}", None),
    ):
        await api.call(admin, method, f"{at}{path}", **({} if body is None else {"json": body}), expect=403)
    answer = await api.call(
        admin, "POST", f"/users/{admin.user_id}/keys", json={"name": "x", "scopes": ["tenant:members"]}, expect=403
    )
    assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN, Role.OWNER])
async def test_nobody_reaches_another_tenants_members(api: Api, role: Role) -> None:
    boss, other = await owner(api), await api.books.account()
    theirs = await member(api, other.tenant_id, role)
    for path in (f"/tenants/{other.tenant_id}/members/{theirs.id}", f"/tenants/{boss.tenant_id}/members/{theirs.id}"):
        await api.call(boss, "DELETE", path, expect=404)
        await api.call(boss, "PUT", f"{path}/role", json={"role": "viewer"}, expect=404)
    await api.call(boss, "GET", f"/tenants/{other.tenant_id}/members", expect=404)


async def test_an_operator_is_of_the_operators_tenant(api: Api) -> None:
    root, boss = await api.platform_admin(), await owner(api)
    new = {"email": "root@acme.example", "role": "operator"}
    await api.call(boss, "POST", f"/tenants/{boss.tenant_id}/invitations", json=new, expect=403)
    await api.call(root, "POST", f"/tenants/{boss.tenant_id}/invitations", json=new, expect=422)
    await api.call(root, "POST", f"/tenants/{root.tenant_id}/invitations", json=new, expect=201)
    await api.call(root, "POST", f"/tenants/{boss.tenant_id}/invitations", json=new | {"role": "owner"}, expect=201)
    operator = await member(api, boss.tenant_id, Role.OPERATOR)
    await api.call(boss, "DELETE", f"/tenants/{boss.tenant_id}/members/{operator.id}", expect=403)


@pytest.mark.parametrize("role", [Role.OWNER, Role.OPERATOR])
async def test_an_admin_disables_no_owner_and_no_operator(api: Api, role: Role) -> None:
    root, admin = await api.platform_admin(), await api.tenant_admin()
    one = await member(api, admin.tenant_id, role)
    (key,) = await api.books.fetch("SELECT user_id FROM api_keys WHERE id = $1", one.key_id)
    path = f"/users/{key['user_id']}/state"
    await api.call(admin, "PUT", path, json={"disabled": True}, expect=403)
    (user,) = await api.books.fetch("SELECT disabled_at FROM users WHERE id = $1", key["user_id"])
    assert user["disabled_at"] is None
    await api.call(root, "PUT", path, json={"disabled": True}, expect=200)
    await api.call(admin, "PUT", path, json={"disabled": False}, expect=403)
    await api.call(root, "DELETE", f"/keys/{one.key_id}", expect=204)
    await api.call(admin, "PUT", path, json={"disabled": False}, expect=200)


async def test_an_admin_ends_no_membership_by_its_key(api: Api) -> None:
    boss = await owner(api)
    admin = await api.tenant_admin(boss.tenant_id)
    one, other = [await member(api, boss.tenant_id, role) for role in (Role.VIEWER, Role.ADMIN)]
    await api.books.fetch(
        "INSERT INTO members (tenant_id, id, key_id, email, role) VALUES ($1, $2, $3, 'x@y.example', 'admin')",
        *(admin.tenant_id, uuid4(), admin.key_id),
    )
    await api.books.fetch(
        "INSERT INTO invitations (tenant_id, id, email, role, hash, actor, expires_at)"
        " VALUES ($1, $2, 'z@y.example', 'viewer', $3, $4, now() + interval '1 day')",
        *(boss.tenant_id, uuid4(), uuid4().bytes * 2, f"key:{one.key_id}"),
    )
    for each in (one, other):
        await api.call(admin, "DELETE", f"/keys/{each.key_id}", expect=403)
    await api.call(boss, "DELETE", f"/keys/{one.key_id}", expect=204)
    assert (await api.call(boss, "GET", f"/tenants/{boss.tenant_id}/invitations")).json()["items"] == []
    await api.call(admin, "DELETE", f"/keys/{admin.key_id}", expect=204)  # leaving
    left = await api.books.fetch("SELECT id FROM members WHERE tenant_id = $1 AND removed_at IS NULL", boss.tenant_id)
    assert [row["id"] for row in left] == [other.id]


async def test_whom_a_key_invited_stays_when_it_is_revoked_with_its_descendants(api: Api) -> None:
    boss = await owner(api)
    inviter = await member(api, boss.tenant_id, Role.OWNER)
    async with api.books.database.session() as session:
        actor = Actor(f"key:{inviter.key_id}", inviter.key_id)
        new = NewMember("invited@acme.example", Role.OWNER)
        invited = await add_member(session, actor, boss.tenant_id, new, live=False)
    await api.call(boss, "PUT", f"/tenants/{boss.tenant_id}/members/{inviter.id}/role", json={"role": "admin"})
    await api.call(boss, "DELETE", f"/keys/{inviter.key_id}?descendants=true", expect=204)
    left = (await api.call(boss, "GET", f"/tenants/{boss.tenant_id}/members")).json()["items"]
    assert [one["id"] for one in left] == [str(invited.id)]


async def test_no_key_beyond_the_callers_rights_ends_with_its_parent(api: Api) -> None:
    root, admin = await api.platform_admin(), await api.tenant_admin()
    body = {"name": "child", "scopes": ["platform:admin"]}
    child = (await api.call(root, "POST", f"/users/{admin.user_id}/keys", json=body, expect=201)).json()["id"]
    await api.books.fetch(
        "UPDATE api_keys SET tenant_id = $2, user_id = $3, scopes = '{tenant:admin}' WHERE id = $1",
        *(root.key_id, admin.tenant_id, admin.user_id),
    )
    await api.call(admin, "DELETE", f"/keys/{root.key_id}?descendants=true", expect=403)
    rows = await api.books.fetch("SELECT revoked_at FROM api_keys WHERE id = ANY ($1::uuid[])", [root.key_id, child])
    assert [row["revoked_at"] for row in rows] == [None, None]


async def derived(api: Api, maker: Member, user_id: UUID, *scopes: Scope) -> UUID:
    """A key that a member made for a user."""
    async with api.books.database.session() as session:
        user = await find_user(session, user_id, tenant_id=maker.tenant_id)
        made, _ = await create_key(
            session,
            Actor(f"key:{maker.key_id}", maker.key_id),
            user,
            name="k",
            scopes=list(scopes),
            models=None,
            expires_at=None,
            live=False,
        )
    return made.id


async def living(api: Api, **keys: UUID) -> set[str]:
    """The names of the keys that are not revoked."""
    rows = await api.books.fetch("SELECT id FROM api_keys WHERE revoked_at IS NULL")
    return {name for name, key_id in keys.items() if key_id in {row["id"] for row in rows}}


async def user_of(api: Api, one: Member) -> UUID:
    (row,) = await api.books.fetch("SELECT user_id FROM api_keys WHERE id = $1", one.key_id)
    found: UUID = row["user_id"]
    return found


@pytest.mark.parametrize("descendants", [False, True])
async def test_other_keys_of_a_removed_member_end(api: Api, descendants: bool) -> None:  # noqa: FBT001 - a parameter
    boss = await owner(api)
    mallory = await member(api, boss.tenant_id, Role.ADMIN)
    own = await derived(api, mallory, await user_of(api, mallory), Scope.TENANT_ADMIN)
    for_another = await derived(api, mallory, boss.user_id, Scope.TENANT_ADMIN)
    keys = {"member": mallory.key_id, "own": own, "for another": for_another, "boss": boss.key_id}
    path = f"/tenants/{boss.tenant_id}/members/{mallory.id}"
    await api.call(boss, "DELETE", f"{path}?descendants={str(descendants).lower()}", expect=204)
    assert await living(api, **keys) == ({"boss"} if descendants else {"boss", "for another"})


@pytest.mark.parametrize("descendants", [False, True])
async def test_keys_beyond_a_lesser_role_end(api: Api, descendants: bool) -> None:  # noqa: FBT001 - a parameter
    boss = await owner(api)
    await member(api, boss.tenant_id, Role.OWNER)
    mallory = await member(api, boss.tenant_id, Role.ADMIN)
    user_id = await user_of(api, mallory)
    keys = {
        "member": mallory.key_id,
        "own": await derived(api, mallory, user_id, Scope.TENANT_ADMIN, Scope.TENANT_READ),
        "own of a viewer": await derived(api, mallory, user_id, Scope.TENANT_READ),
        "for another": await derived(api, mallory, boss.user_id, Scope.TENANT_ADMIN),
        "reads for another": await derived(api, mallory, boss.user_id, Scope.USAGE_READ),
    }
    path = f"/tenants/{boss.tenant_id}/members/{mallory.id}/role"
    await api.call(boss, "PUT", path, json={"role": "owner"}, expect=200)
    assert await living(api, **keys) == set(keys)
    await api.call(boss, "PUT", f"{path}?descendants={str(descendants).lower()}", json={"role": "viewer"}, expect=200)
    ended = {"own", "for another"} if descendants else {"own"}
    assert await living(api, **keys) == set(keys) - ended


async def test_an_owner_ends_no_key_of_the_operators_with_a_membership(api: Api) -> None:
    root, boss = await api.platform_admin(), await owner(api)
    one = await member(api, boss.tenant_id, Role.VIEWER)
    body = {"name": "root", "scopes": ["platform:admin"]}
    path = f"/users/{await user_of(api, one)}/keys"
    key_id = UUID((await api.call(root, "POST", path, json=body, expect=201)).json()["id"])
    at = f"/tenants/{boss.tenant_id}/members/{one.id}"
    await api.call(boss, "DELETE", at, expect=403)
    assert await living(api, root=key_id, member=one.key_id) == {"root", "member"}
    await api.call(root, "DELETE", at, expect=204)
    assert await living(api, root=key_id, member=one.key_id) == set()


@pytest.mark.parametrize("ending", ["removed", "admin", "disabled"])
async def test_who_lost_the_right_meanwhile_changes_no_member(api: Api, ending: str) -> None:
    boss = await owner(api)
    thief, _, accomplice = [await member(api, boss.tenant_id, role) for role in (Role.OWNER, Role.OWNER, Role.VIEWER)]
    runtime = api.app.state.runtime
    async with api.books.database.session() as session:
        principal = await principal_of(session, thief)
    actor = Actor(f"key:{thief.key_id}", thief.key_id)
    stale = ServiceContext(runtime.settings, runtime.database, runtime.changes, actor, principal)
    at = f"/tenants/{boss.tenant_id}/members/{thief.id}"
    if ending == "removed":
        await api.call(boss, "DELETE", at, expect=204)
    elif ending == "admin":
        await api.call(boss, "PUT", f"{at}/role", json={"role": "admin"}, expect=200)
    else:
        await api.books.fetch("UPDATE users SET disabled_at = now() WHERE id = $1", principal.user_id)
    with pytest.raises((Unauthenticated, Forbidden)):
        await change_role(stale, boss.tenant_id, accomplice.id, Role.OWNER)
    with pytest.raises((Unauthenticated, Forbidden)):
        await remove_member(stale, boss.tenant_id, accomplice.id)
    (row,) = await api.books.fetch("SELECT role, removed_at FROM members WHERE id = $1", accomplice.id)
    assert (row["role"], row["removed_at"]) == ("viewer", None)


async def test_a_member_is_not_invited_again(api: Api) -> None:
    boss = await owner(api)
    known = await member(api, boss.tenant_id, Role.VIEWER)
    new = {"email": known.email, "role": "admin"}
    answer = await api.call(boss, "POST", f"/tenants/{boss.tenant_id}/invitations", json=new, expect=409)
    assert answer.json()["code"] == "conflict"


async def test_a_viewers_key_reads_the_reports_only(api: Api) -> None:
    viewer = await api.books.account(scopes=sorted(SCOPES[Role.VIEWER]))
    other = await api.books.account()
    await api.call(viewer, "GET", "/reports/usage", expect=200)
    await api.call(viewer, "GET", "/requests", expect=200)
    await api.call(viewer, "GET", f"/requests?tenant_id={other.tenant_id}", expect=404)
    for path in ("/tenants", f"/tenants/{viewer.tenant_id}/users", "/audit", f"/tenants/{viewer.tenant_id}/members"):
        await api.call(viewer, "GET", path, expect=403)
    plain = await api.books.account(scopes=[Scope.USAGE_READ])
    await api.call(plain, "GET", "/reports/usage", expect=403)


async def test_an_admin_grants_reading_the_usage(api: Api) -> None:
    admin = await api.tenant_admin()
    body = {"name": "finance", "scopes": ["tenant:read"]}
    made = await api.call(admin, "POST", f"/users/{admin.user_id}/keys", json=body, expect=201)
    assert made.json()["scopes"] == ["tenant:read"]
