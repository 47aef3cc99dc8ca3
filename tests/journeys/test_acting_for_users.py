"""A product's backend acts for its users: each is limited, metered and reported as if it had a key of its own."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from core.ids import uuid7_ms
from core.tenancy.principal import Scope
from metering.counts import COUNT_COLUMNS
from tests.harness import Account, Api, Books, Simulator, client, scripted

BACKEND = [Scope.CHAT_AS_USER, Scope.USAGE_READ]
ADMIN = [Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ]


def naming(account: Account, user: str) -> dict[str, str]:
    return account.headers | {"naka-user": user}


async def ask(http: httpx2.AsyncClient, headers: Any, **body: Any) -> httpx2.Response:
    return await http.post("/chat", json={"message": scripted(words=3), **body}, headers=headers)


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def users_of(books: Books, tenant_id: UUID) -> dict[str, UUID]:
    rows = await books.fetch("SELECT external_id, id FROM users WHERE tenant_id = $1", tenant_id)
    return {row["external_id"]: row["id"] for row in rows}


@pytest.mark.slow
async def test_the_user_that_a_request_names_is_made_metered_and_reported(
    http: httpx2.AsyncClient, books: Books
) -> None:
    backend = await books.account(scopes=BACKEND)
    decomposed, composed = "Ada Lovele\u0301ce", "Ada Lovel\u00e9ce"

    by_header = await ask(http, naming(backend, "ada@acme.example"))
    by_field = await ask(http, backend.headers, user=f"  {decomposed} ")
    both = await ask(http, naming(backend, "ada@acme.example"), user=" ada@acme.example ")
    again = await ask(http, [*backend.headers.items(), ("naka-user", composed.encode())])

    assert {answer.status_code for answer in (by_header, by_field, both, again)} == {200}
    users = await users_of(books, backend.tenant_id)
    assert users.keys() >= {"ada@acme.example", composed}
    assert len(users) == 3
    rows = await books.fetch("SELECT user_id, key_id FROM usage_requests WHERE tenant_id = $1", backend.tenant_id)
    assert Counter(row["user_id"] for row in rows) == {users["ada@acme.example"]: 2, users[composed]: 2}
    assert {row["key_id"] for row in rows} == {backend.key_id}
    own = await http.get("/v1/usage", headers=naming(backend, "ada@acme.example"))
    assert own.json()["totals"]["requests"] == 2
    made = await books.fetch(
        "SELECT actor FROM audit_log WHERE tenant_id = $1 AND target = $2",
        backend.tenant_id,
        f"user:{users['ada@acme.example']}",
    )
    assert [row["actor"] for row in made] == [f"key:{backend.key_id}"]


@pytest.mark.parametrize("path", ["/chat", "/v1/messages"])
async def test_what_is_refused_before_anything_is_stored(http: httpx2.AsyncClient, books: Books, path: str) -> None:
    backend, plain = await books.account(scopes=BACKEND), await books.account()
    body: dict[str, Any] = {"message": "hello"}
    if path == "/v1/messages":
        message = {"role": "user", "content": "hello"}
        body = {"model": "claude-sonnet-4-6", "max_tokens": 10, "messages": [message]}

    async def code(headers: Any) -> tuple[int, str]:
        answer = await http.post(path, json=body, headers=headers)
        found = answer.json()
        return answer.status_code, found.get("code") or found["error"]["type"]

    anthropic = path == "/v1/messages"
    invalid = (400, "invalid_request_error") if anthropic else (422, "invalid_request")
    missing = invalid if anthropic else (422, "user_required")
    forbidden = (403, "permission_error") if anthropic else (403, "forbidden")
    assert await code(backend.headers) == missing
    assert await code([*backend.headers.items(), ("naka-user", "\u00a0".encode())]) == invalid
    assert await code(naming(backend, "x" * 201)) == invalid
    assert await code([*backend.headers.items(), ("naka-user", "a"), ("naka-user", "b")]) == invalid
    assert await code([*backend.headers.items(), ("naka-user", "a\u2028b".encode())]) == invalid
    assert await code(naming(plain, "somebody")) == forbidden
    for account in (backend, plain):
        assert len(await users_of(books, account.tenant_id)) == 1
        assert await books.fetch("SELECT FROM usage_requests WHERE tenant_id = $1", account.tenant_id) == []


@pytest.mark.slow
async def test_an_invalid_body_makes_no_user(http: httpx2.AsyncClient, books: Books) -> None:
    backend = await books.account(scopes=BACKEND)
    assert (await ask(http, naming(backend, "ada"), message=" ")).status_code == 422
    assert refusal(await ask(http, naming(backend, "ada"), user="bob")) == (422, "invalid_request")
    assert len(await users_of(books, backend.tenant_id)) == 1


async def test_a_tenant_decides_whether_and_how_fast_users_are_made(http: httpx2.AsyncClient, books: Books) -> None:
    admin = await books.account(scopes=ADMIN)
    backend = await books.account(scopes=BACKEND, tenant_id=admin.tenant_id)
    path = f"/v1/admin/tenants/{admin.tenant_id}/new-users"
    assert (await http.get(path, headers=admin.headers)).json() == {"makes_users": True, "new_users_per_minute": 600}

    await http.put(path, json={"makes_users": True, "new_users_per_minute": 5}, headers=admin.headers)
    answers = await asyncio.gather(*(ask(http, naming(backend, f"user-{number}")) for number in range(12)))
    refused = [answer for answer in answers if answer.status_code != 200]
    users = await users_of(books, admin.tenant_id)
    assert len(users) - 2 == 12 - len(refused) >= 3
    by_minute = Counter(uuid7_ms(id_) // 60_000 for id_ in users.values())
    assert max(by_minute.values()) <= 5, "the admin and the backend are users of their minute, too"
    assert {refusal(answer) for answer in refused} == {(429, "too_many_new_users")}
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)

    await http.put(path, json={"makes_users": False, "new_users_per_minute": 5}, headers=admin.headers)
    assert refusal(await ask(http, naming(backend, "unknown"))) == (403, "user_unknown")
    known = next(name for name in await users_of(books, admin.tenant_id) if name.startswith("user-"))
    assert (await ask(http, naming(backend, known))).status_code == 200


@pytest.mark.slow
async def test_a_disabled_user_is_refused_on_every_process_at_once(
    http: httpx2.AsyncClient, start_api: Callable[..., Api], books: Books
) -> None:
    admin = await books.account(scopes=ADMIN)
    backend = await books.account(scopes=BACKEND, tenant_id=admin.tenant_id)
    other = start_api(DIRECTORY_TTL_S="300", REDIS_URL="redis://127.0.0.1:1/0")  # it hears of no change
    person = await books.account(tenant_id=admin.tenant_id)
    (name,) = (name for name, id_ in (await users_of(books, admin.tenant_id)).items() if id_ == person.user_id)
    path = f"/v1/admin/users/{person.user_id}/state"
    async with client(other.url) as there:
        for headers in (person.headers, naming(backend, name)):
            assert [(await ask(each, headers)).status_code for each in (http, there)] == [200, 200]

        done = await http.put(path, json={"disabled": True}, headers=admin.headers)
        assert done.json()["disabled_at"] is not None
        for headers in (person.headers, naming(backend, name)):
            for each in (http, there):
                assert refusal(await ask(each, headers)) == (403, "user_disabled")
            for each in (http, there):
                assert refusal(await each.get("/v1/usage", headers=headers)) == (403, "user_disabled")

        await http.put(path, json={"disabled": False}, headers=admin.headers)
        for headers in (person.headers, naming(backend, name)):
            assert (await ask(http, headers)).status_code == 200


async def test_limits_of_all_users_apply_to_each_without_its_own(http: httpx2.AsyncClient, books: Books) -> None:
    admin = await books.account(scopes=ADMIN)
    backend = await books.account(scopes=BACKEND, tenant_id=admin.tenant_id)
    wanted = {"limits": [{"meter": "requests", "window": "day", "limit": 1}], "concurrency": None}
    path = f"/v1/admin/tenants/{admin.tenant_id}/user-limits"
    answer = await http.put(path, json=wanted, headers=admin.headers)
    assert answer.json()["source"] == "set"

    assert (await ask(http, naming(backend, "ada"))).status_code == 200
    assert refusal(await ask(http, naming(backend, "ada"))) == (429, "limit_reached")
    assert (await ask(http, naming(backend, "bob"))).status_code == 200
    ada = (await users_of(books, admin.tenant_id))["ada"]
    own = f"/v1/admin/users/{ada}/limits"
    assert (await http.get(own, headers=admin.headers)).json()["source"] == "users"
    await http.put(own, json={"limits": [], "concurrency": None}, headers=admin.headers)
    assert (await ask(http, naming(backend, "ada"))).status_code == 200


@pytest.mark.slow
async def test_five_hundred_requests_over_two_hundred_new_users_on_two_processes(
    http: httpx2.AsyncClient, start_api: Callable[..., Api], books: Books, simulator: Simulator
) -> None:
    backend = await books.account(scopes=BACKEND)
    ref, turns = uuid4().hex, asyncio.Semaphore(50)
    async with client(start_api().url) as there:

        async def one(number: int) -> int:
            async with turns:
                headers = naming(backend, f"person-{number % 200}@acme.example")
                message = scripted(ref=ref, words=3)
                each = (http, there)[number // 200 % 2] if number < 400 else (http, there)[number % 2]
                return (await each.post("/chat", json={"message": message}, headers=headers)).status_code

        assert Counter(await asyncio.gather(*map(one, range(500)))) == {200: 500}

    users = await users_of(books, backend.tenant_id)
    assert len(users) == 201
    served = simulator.ledger(ref)
    per_user = await books.fetch(
        "SELECT user_id, sum(requests)::int AS requests FROM usage_daily WHERE tenant_id = $1 GROUP BY 1",
        backend.tenant_id,
    )
    names = {id_: name for name, id_ in users.items()}
    found = {names[row["user_id"]]: row["requests"] for row in per_user}
    assert found == {f"person-{number}@acme.example": 3 if number < 100 else 2 for number in range(200)}
    sums = [await books.sums(table, backend.tenant_id) for table in ("usage_requests", "usage_daily", "usage_meters")]
    assert sums[0] == sums[1] == sums[2]
    assert sums[0]["requests"] == len(served) == 500
    assert sums[0]["output_tokens"] == sum(row["output_tokens"] for row in served)
    assert set(sums[0]) == set(COUNT_COLUMNS)


@pytest.mark.slow
async def test_a_name_is_in_no_log(start_api: Callable[..., Api], books: Books) -> None:
    backend = await books.account(scopes=BACKEND)
    served = start_api(LOG_LEVEL="info")
    async with client(served.url) as http:
        assert (await ask(http, naming(backend, "grace.hopper@acme.example"))).status_code == 200
        wrong = [*backend.headers.items(), ("naka-user", "grace.hopper\u0080".encode())]
        assert refusal(await ask(http, wrong)) == (422, "invalid_request")
    users = await users_of(books, backend.tenant_id)
    log = served.log.read_text()
    assert str(users["grace.hopper@acme.example"]) in log
    assert "hopper" not in log
