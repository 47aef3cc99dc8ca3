"""Every admin operation that the API describes, with keys that may not, and with ids that are not one's own."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from core.clock import now_ms
from core.identity.invitations import invite
from core.identity.members import NewMember, add_member
from core.identity.roles import SCOPES, Role
from core.ids import uuid7
from core.tenancy.principal import Scope
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.api.conftest import Api
from tests.core.identity.idp import AUDIENCE, ISSUER, claims, new_key, pem_of, sign
from tests.harness import ACTOR, Account, Books

LIMITS = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 1000),))
OF_BILLING = frozenset({"bill_id", "charge_id", "refund_id"})
"""Ids of what an operator alone may look at; here they are nothing's."""
OF_PEOPLE = frozenset({"member_id", "invitation_id"})
NO_EVENT = "AAAAAAAAAAAAAA"
"""An event of Razorpay's that never came."""
PLAN = {"code": "team", "version": 1}
"""The plan of the example, which is published first."""
TAG = {"key": "conversation"}
"""A tag key that every tenant has from the start."""
TABLES = (
    "tenants",
    "users",
    "api_keys",
    "issuers",
    "limit_sets",
    "tag_limits",
    "entitlements",
    "audit_log",
    "members",
    "invitations",
    "usage_requests",
    "usage_entries",
    "usage_daily",
    "usage_meters",
    "tag_keys",
)


@dataclass(frozen=True)
class Operation:
    """One operation of the document, with an example of its body."""

    method: str
    path: str
    body: Any = None
    ids: list[tuple[str, str]] = field(default_factory=list)
    """(where, name) of each parameter that is an id of something."""
    query: dict[str, str] = field(default_factory=dict)
    """Examples of the parameters that it requires."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    async def send(self, api: Api, account: Account | None, ids: dict[str, UUID]) -> Any:
        """Calls it: path ids from `ids`, and each query id only if it is there."""
        known = {**ids, **PLAN, **TAG}
        path = re.sub(r"{(\w+)}", lambda name: str(known.get(name[1], NO_EVENT)), self.path)
        query = self.query | {name: str(ids[name]) for where, name in self.ids if where == "query" and name in ids}
        how = {} if self.body is None else {"json": self.body}
        headers = {} if account is None else account.headers
        return await api.http.request(self.method, path, params=query, headers=headers, **how)


def operations(api: Api) -> Iterator[Operation]:
    """All of them under `/v1/admin`, as the document has them."""
    document = api.app.openapi()
    for path, methods in document["paths"].items():
        if not path.startswith("/v1/admin"):
            continue
        for method, operation in methods.items():
            ids = [
                (parameter["in"], parameter["name"])
                for parameter in operation.get("parameters", [])
                if parameter["name"].endswith("_id")
            ]
            required = {
                parameter["name"]: str(parameter["schema"]["examples"][0])
                for parameter in operation.get("parameters", [])
                if parameter["in"] == "query" and parameter["required"]
            }
            yield Operation(method.upper(), path, _example(document, operation), ids, required)


def _example(document: dict[str, Any], operation: dict[str, Any]) -> Any:
    if "requestBody" not in operation:
        return None
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return document["components"]["schemas"][reference.rpartition("/")[2]]["examples"][0]


async def neighbour(api: Api) -> dict[str, UUID]:
    """A tenant with one of everything; its ids by the name of the parameter."""
    victim = await api.books.account(limits=LIMITS, tenant_limits=LIMITS)
    request_id = await settled(api, victim)
    await api.books.fetch(
        "INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, requests)"
        " VALUES ($1, $2, current_date, '2026-11', $3, 'm', 1)",
        victim.tenant_id,
        victim.user_id,
        victim.key_id,
    )
    await api.books.fetch(
        "INSERT INTO usage_entries (tenant_id, id, kind, request_id, user_id, key_id, model, period_id, day, actor,"
        " reason) VALUES ($1, $2, 'revision', $3, $4, $5, 'm', '2026-11', current_date, 'naka', 'final')",
        victim.tenant_id,
        uuid7(),
        request_id,
        victim.user_id,
        victim.key_id,
    )
    await api.books.fetch("INSERT INTO tag_keys (tenant_id, key) VALUES ($1, 'feature')", victim.tenant_id)
    issuer_id = uuid7()
    await api.books.fetch(
        "INSERT INTO issuers (tenant_id, id, key_id, issuer, audience, verification_keys, user_claim, scopes)"
        " VALUES ($1, $2, $3, 'https://login.neighbour.example', 'naka', 'https://neighbour.example', 'sub', '{chat}')",
        victim.tenant_id,
        issuer_id,
        (await api.books.account(tenant_id=victim.tenant_id)).key_id,
    )
    return ids_of(victim) | {"request_id": request_id, "issuer_id": issuer_id, **await _people(api, victim)}


async def _people(api: Api, victim: Account) -> dict[str, UUID]:
    """A member of the tenant, and somebody invited."""
    async with api.books.database.session() as session:
        new = NewMember(f"m-{uuid7().hex}@acme.example", Role.VIEWER)
        member = await add_member(session, ACTOR, victim.tenant_id, new, live=False)
        email = f"i-{uuid7().hex}@acme.example"
        made, _ = await invite(session, ACTOR, victim.tenant_id, email=email, role=Role.VIEWER, days=1)
    return {"member_id": member.id, "invitation_id": made.id}


def ids_of(account: Account) -> dict[str, UUID]:
    """Its ids by the name of the parameter; the request is one that nobody made."""
    ids = {"tenant_id": account.tenant_id, "user_id": account.user_id, "key_id": account.key_id}
    return ids | {name: uuid7() for name in ("price_id", "request_id", "issuer_id", *OF_PEOPLE, *OF_BILLING)}


async def jwt_of(api: Api, admin: Account) -> str:
    """A JWT of an issuer of the admin's tenant, which names a user of its own and claims to be a neighbour's admin."""
    key = new_key("ES256")
    new = {"issuer": f"{ISSUER}{admin.tenant_id}", "audience": AUDIENCE, "verification_keys": pem_of(key)}
    await api.call(admin, "POST", f"/tenants/{admin.tenant_id}/issuers", json=new, expect=201)
    return sign(key, "ES256", claims(iss=new["issuer"], scope="tenant:admin platform:admin", tenant_id=str(uuid7())))


async def settled(api: Api, account: Account) -> UUID:
    """A request of the account that used something, at a price of the list."""
    request_id = uuid7(now_ms())
    await api.books.fetch(
        "INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, price_id, period_id, day, opened_at, model,"
        " requests, output_tokens, cost_nano_usd) SELECT $1, $2, $3, $4, 'settled', p.id, '2026-11', current_date,"
        " now(), p.model, 1, 1000, 1000000000 FROM prices p LIMIT 1",
        account.tenant_id,
        request_id,
        account.user_id,
        account.key_id,
    )
    return request_id


async def dump(books: Books, tenant_id: UUID) -> dict[str, list[str]]:
    """Everything that the database has of a tenant."""
    found = {}
    for table in TABLES:
        column = "id" if table == "tenants" else "tenant_id"
        rows = await books.fetch(f"SELECT t.*::text AS row FROM {table} t WHERE {column} = $1", tenant_id)
        found[table] = sorted(row["row"] for row in rows)
    return found


def comparable(answer: Any) -> tuple[Any, ...]:
    """All of an answer but what differs from one request to the next."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    body = re.sub(r'"request_id":"[^"]*"', '"request_id":"-"', answer.text)
    return answer.status_code, headers, body


@pytest.mark.slow
async def test_the_document_has_the_operations(api: Api) -> None:
    found = list(operations(api))
    assert len(found) >= 27
    named = {name for operation in found for _, name in operation.ids}
    assert named == {"tenant_id", "user_id", "key_id", "issuer_id", "price_id", "request_id"} | OF_PEOPLE | OF_BILLING
    assert all(operation.body for operation in found if operation.method == "PUT")


@pytest.mark.slow
@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN, Role.OWNER])
async def test_a_neighbours_id_is_an_unknown_id(api: Api, role: Role) -> None:
    admin = await api.books.account(scopes=sorted({Scope.CHAT, *SCOPES[role]}))
    mine = ids_of(admin)
    theirs = await neighbour(api)
    before = await dump(api.books, theirs["tenant_id"])
    asked = 0
    for operation in operations(api):
        for where, name in operation.ids:
            if name not in theirs or name == "price_id":
                continue
            fixed = {other: mine[other] for place, other in operation.ids if place == "path"}
            foreign = await operation.send(api, admin, {**fixed, name: theirs[name]})
            unknown = await operation.send(api, admin, {**fixed, name: uuid7()})

            assert comparable(foreign) == comparable(unknown), f"{operation} {where} {name}"
            assert foreign.status_code in (403, 404), f"{operation} {where} {name}: {foreign.text}"
            asked += 1
    assert asked >= 22
    assert await dump(api.books, theirs["tenant_id"]) == before


async def test_a_neighbours_user_is_unknown_beside_ones_own_tenant(api: Api) -> None:
    admin = await api.tenant_admin()
    theirs = await neighbour(api)
    operation = next(found for found in operations(api) if found.path == "/v1/admin/requests")
    ids = {"tenant_id": admin.tenant_id}
    foreign = await operation.send(api, admin, {**ids, "user_id": theirs["user_id"]})
    unknown = await operation.send(api, admin, {**ids, "user_id": uuid7()})
    assert comparable(foreign) == comparable(unknown)
    assert foreign.status_code == 404


@pytest.mark.slow
async def test_nothing_of_a_neighbour_is_in_a_list(api: Api) -> None:
    admin = await api.tenant_admin()
    mine = ids_of(admin) | {"request_id": await settled(api, admin)}
    theirs = await neighbour(api)
    listed = 0
    for operation in operations(api):
        if operation.method == "GET":
            paths = {name: mine[name] for where, name in operation.ids if where == "path"}
            answer = await operation.send(api, admin, paths)
            assert answer.status_code in (200, 403), str(operation)
            assert not any(str(found) in answer.text for found in theirs.values()), str(operation)
            listed += answer.status_code == 200
    assert listed >= 12


@pytest.mark.slow
async def test_only_an_admin_may(api: Api) -> None:
    reader = await api.books.account(scopes=[Scope.CHAT, Scope.USAGE_READ])
    ids = ids_of(reader)
    before = await dump(api.books, reader.tenant_id)
    for operation in operations(api):
        wrong = Account(reader.tenant_id, reader.user_id, reader.key_id, f"{reader.key[:-1]}~")
        for account, status in ((None, 401), (wrong, 401), (reader, 403)):
            answer = await operation.send(api, account, ids)
            assert answer.status_code == status, f"{operation}: {answer.text}"
            assert answer.headers["content-type"] == "application/problem+json"
    assert await dump(api.books, reader.tenant_id) == before


@pytest.mark.slow
async def test_a_viewer_reads_the_usage_and_nothing_else(api: Api) -> None:
    viewer = await api.books.account(scopes=sorted(SCOPES[Role.VIEWER]))
    ids = ids_of(viewer) | {"request_id": await settled(api, viewer)}
    before = await dump(api.books, viewer.tenant_id)
    read = set()
    for operation in operations(api):
        answer = await operation.send(api, viewer, ids)
        assert answer.status_code in (200, 403), f"{operation}: {answer.text}"
        if answer.status_code == 200:
            read.add(str(operation))
    assert read == {
        "GET /v1/admin/reports/usage",
        "GET /v1/admin/reports/refusals",
        "GET /v1/admin/requests",
    }
    assert await dump(api.books, viewer.tenant_id) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["token", "jwt"])
async def test_a_token_administers_nothing_and_reaches_no_neighbour(api: Api, kind: str) -> None:
    admin = await api.books.account(scopes=[Scope.TENANT_ADMIN, Scope.CHAT, Scope.CHAT_AS_USER, Scope.USAGE_READ])
    theirs = await neighbour(api)
    made = await api.http.post("/v1/tokens", json={"user": "ada", "ttl_s": 600}, headers=admin.headers)
    sent = made.json()["token"] if kind == "token" else await jwt_of(api, admin)
    token = Account(admin.tenant_id, admin.user_id, admin.key_id, sent)
    assert (await api.http.get("/v1/usage", headers=token.headers)).status_code == 200, "which makes the JWT's user"
    before = [await dump(api.books, tenant_id) for tenant_id in (admin.tenant_id, theirs["tenant_id"])]
    for operation in operations(api):
        for ids in (ids_of(admin), theirs):
            answer = await operation.send(api, token, ids)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), f"{operation}: {answer.text}"
    assert [await dump(api.books, tenant_id) for tenant_id in (admin.tenant_id, theirs["tenant_id"])] == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["token", "jwt", "named", "as_user"])
async def test_no_route_tells_a_token_or_a_named_user_of_a_neighbour(api: Api, kind: str) -> None:
    """Every documented route that is no admin's, with the neighbour's ids in path and query."""
    backend, victim = await api.books.account(scopes=[Scope.CHAT_AS_USER, Scope.USAGE_READ]), await neighbour(api)
    (their,) = await api.books.fetch("SELECT external_id FROM users WHERE id = $1", victim["user_id"])
    made = await api.http.post("/v1/tokens", json={"user": "ada", "ttl_s": 600}, headers=backend.headers)
    headers = {
        "token": {"authorization": f"Bearer {made.json()['token']}"},
        "jwt": {"authorization": f"Bearer {await jwt_of(api, await api.tenant_admin(backend.tenant_id))}"},
        "named": backend.headers | {"naka-user": "ada"},
        "as_user": backend.headers | {"naka-user": their["external_id"]},
    }[kind]
    before, asked = await dump(api.books, victim["tenant_id"]), 0
    for path, methods in api.app.openapi()["paths"].items():
        if path.startswith(("/v1/admin", "/chat")):
            continue
        place = re.sub(r"{(\w+)}", lambda name: str(victim.get(name[1], NO_EVENT)), path)
        for method in methods:
            query = {name: str(id_) for name, id_ in victim.items() if method == "get"}
            for params in ({}, query):
                answer = await api.http.request(method.upper(), place, params=params, headers=headers)
                told = {str(id_) for id_ in victim.values()} - {part for part in place.split("/") if part}
                assert not any(id_ in answer.text for id_ in told), f"{method} {path}: {answer.text}"
                asked += 1
    assert asked >= 20
    assert await dump(api.books, victim["tenant_id"]) == before
    answer = await api.http.get(f"/v1/usage/requests/{victim['request_id']}", headers=headers)
    assert answer.status_code in (403, 404)


@pytest.mark.slow
async def test_every_operation_is_for_the_operator(api: Api) -> None:
    operator = await api.platform_admin()
    ids = {**await neighbour(api), "price_id": uuid7()}
    for operation in sorted(
        operations(api), key=lambda found: (found.method == "DELETE", found.path != "/v1/admin/plans")
    ):
        answer = await operation.send(api, operator, ids)
        nothing = ("price_id", "event_name", "findings/close", "{coupon}", "mandate/cancel", *OF_BILLING)
        is_nothing = any(name in operation.path for name in nothing)
        expected = {404} if is_nothing else {200, 201, 204}
        if operation.path.endswith("/wallet/refunds"):
            expected = {409}  # nobody paid anything in
        assert answer.status_code in expected, f"{operation}: {answer.text}"
        assert is_nothing or answer.headers["cache-control"] == "no-store", str(operation)
