"""The shared pools of a process: a tenant that has used up its share is refused, and other tenants are not affected."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from api.http.body_admission import _Budget
from billing.alerts.alerts import TESTS_PER_MINUTE
from core.clock import now_ms
from core.errors import Unavailable
from core.resilience.shares import FairPool, PoolFull
from core.settings import Settings
from core.tenancy.principal import Scope
from metering.admission.admission import AdmissionRequest
from metering.quota.limits import LimitSet
from tests.api.conftest import Api
from tests.harness import Account
from tests.pages.reported import settle, used

SMALL = AdmissionRequest(model="claude-sonnet-4-6", max_tokens=1, prompt_bound=33, prompt_likely=32)
PLATFORM = [Scope.PLATFORM_ADMIN]


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Small pools, so that a share is one or two places; and default limits of a tenant without a plan."""
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        anthropic_api_key="never-used",
        anthropic_base_url="http://127.0.0.1:9",
        upstream_max_connections=4,
        upstream_retries=0,
        database_pool_size=3,
        database_timeout_s=2,
        report_pool_size=1,
        live_views=2,
        client_write_timeout_s=0.5,
        admin_requests_per_minute=1,
        default_user_concurrency=7,
        default_user_requests_per_minute=70,
        default_tenant_concurrency=9,
        default_tenant_spend_per_day_micro_usd=1,
    )


@contextmanager
def share_of(pool: FairPool, owner: object) -> Iterator[int]:
    """Takes the owner's whole share of a pool for the block; yields its size."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(pool.take(owner))
            except PoolFull:
                break
        yield pool.held_by(owner)


async def chat(api: Api, account: Account) -> httpx2.Response:
    """Sends a chat."""
    return await api.http.post("/chat", headers=account.headers, json={"message": "hello"})


async def admin_of(api: Api, tenant: Account) -> Account:
    """Creates an admin of the account's tenant."""
    return await api.tenant_admin(tenant.tenant_id)


def refused(answer: httpx2.Response) -> tuple[int, str, bool]:
    """Returns the status, the code, and whether it has a Retry-After."""
    return answer.status_code, answer.json()["code"], int(answer.headers["retry-after"]) >= 1


def test_a_body_that_grows_has_the_room_of_one_that_was_declared() -> None:
    room = _Budget(1_200)
    for taken in range(0, 900, 100):
        room.take("a", 100, taken)
    with pytest.raises(Unavailable):
        room.take("a", 1)  # another body of the same owner
    room.take("b", 200)
    with pytest.raises(Unavailable):
        room.take("a", 200, 900)  # more than there is
    room.give_back("a", 900)
    room.take("a", 1)


@pytest.mark.slow
async def test_a_full_share_of_the_upstream_answers_before_a_hold_is_taken(api: Api) -> None:
    greedy, modest = [await api.books.account(tenant_limits=LimitSet()) for _ in range(2)]
    pool = api.app.state.runtime.pools.upstream
    with share_of(pool, greedy.tenant_id) as places:
        assert places == 2
        assert refused(await chat(api, greedy)) == (503, "overloaded", True)
        assert await api.books.requests(greedy) == []
        assert (await chat(api, modest)).json()["code"] == "upstream_unreachable", "it was let through"
    assert (await chat(api, greedy)).json()["code"] == "upstream_unreachable"
    assert (pool.taken, pool.owners) == (0, 0)


@pytest.mark.slow
async def test_who_holds_its_share_of_the_database_waits_and_others_do_not(api: Api) -> None:
    greedy, modest = [await api.tenant_admin() for _ in range(2)]
    with share_of(api.app.state.runtime.pools.database, greedy.tenant_id):
        path = f"/v1/admin/tenants/{greedy.tenant_id}"
        assert refused(await api.http.get(path, headers=greedy.headers)) == (503, "overloaded", True)
        path = f"/v1/admin/tenants/{modest.tenant_id}"
        assert (await api.http.get(path, headers=modest.headers)).status_code == 200


@pytest.mark.slow
async def test_a_flood_of_keys_from_one_address_keeps_nobody_else_out(api: Api) -> None:
    account = await api.books.account(tenant_limits=LimitSet())
    database = api.app.state.runtime.pools.database
    with share_of(database, account.tenant_id), share_of(database, "203.0.113.7"):
        there = httpx2.ASGITransport(app=api.app, client=("203.0.113.7", 1234), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=there, base_url="http://naka.test") as flood:
            assert refused(await flood.get("/v1/usage", headers=account.headers)) == (503, "overloaded", True)
            form, headers = {"key": account.key}, {"sec-fetch-site": "same-origin"}
            assert (await flood.post("/sign-in", data=form, headers=headers)).status_code == 503
        assert (await chat(api, account)).json()["code"] == "upstream_unreachable", "another address is let in"


async def test_who_is_refused_for_its_rate_waits_for_the_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note_wait(wait_s: float) -> None:
        waits.append(wait_s)

    hasty = await api.tenant_admin()
    path = f"/v1/admin/tenants/{hasty.tenant_id}"
    # Not asyncio's own: a background task that sleeps in a loop would never yield.
    monkeypatch.setattr("api.http.request_context.asyncio", SimpleNamespace(sleep=note_wait))
    answers = [await api.http.get(path, headers=hasty.headers) for _ in range(12)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert waits == [0.25] * len(limited) != []
    denied = await api.books.account(limits=LimitSet(concurrency=0))
    assert (await chat(api, denied)).status_code == 429
    assert len(waits) == len(limited), "a limit of the chat is not such a refusal"


async def unread(api: Api, account: Account, path: str, started: asyncio.Event) -> None:
    """Sends a request and reads nothing of the body."""
    url = httpx2.URL(f"http://naka.test{path}")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": url.path,
        "raw_path": url.path.encode(),
        "query_string": url.query,
        "headers": [(name.encode(), value.encode()) for name, value in account.headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("naka.test", 80),
    }

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            started.set()
            await asyncio.Event().wait()

    await api.app(scope, receive, send)  # type: ignore[arg-type]


@pytest.mark.slow
async def test_reports_that_nobody_reads_end_and_until_then_hold_no_more_than_a_share(api: Api) -> None:
    greedy, modest = [await api.tenant_admin() for _ in range(2)]
    await settle(api.books, [used(random.Random(1), greedy, now_ms())])
    pool, started = api.app.state.runtime.pools.reports, asyncio.Event()
    for path in ("/v1/admin/reports/usage?format=csv", "/v1/admin/requests?format=csv", "/v1/admin/reports/usage"):
        started.clear()
        stream = asyncio.create_task(unread(api, greedy, path, started))
        await asyncio.wait_for(started.wait(), 10)
        assert pool.held_by(greedy.tenant_id) == 1
        answer = await api.http.get(path, headers=modest.headers)
        assert answer.status_code == 200, "another reads its own meanwhile"
        await asyncio.wait_for(stream, 10)
        assert (pool.taken, pool.owners) == (0, 0), "it was cut, and its connection given back"


@pytest.mark.slow
async def test_live_views_are_shared_and_a_refusal_has_a_status(api: Api) -> None:
    greedy, modest = [await api.tenant_admin() for _ in range(2)]
    pool = api.app.state.runtime.pools.live
    with share_of(pool, greedy.tenant_id):
        answer = await api.http.get("/reports/live/events", headers=greedy.headers)
        assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
        started = asyncio.Event()
        view = asyncio.create_task(unread(api, modest, "/reports/live/events", started))
        await asyncio.wait_for(started.wait(), 10)
        assert pool.held_by(modest.tenant_id) == 1
        await asyncio.wait_for(view, 10)
        assert pool.held_by(modest.tenant_id) == 0, "nobody read it"


@pytest.mark.slow
async def test_a_key_has_a_rate_and_another_key_its_own(api: Api) -> None:
    busy = await api.tenant_admin()
    other = await admin_of(api, busy)
    answers = [await api.http.get("/v1/billing/alerts", headers=busy.headers) for _ in range(11)]
    assert [answer.status_code for answer in answers[:10]] == [200] * 10
    assert refused(answers[10]) == (429, "rate_limited", True)
    assert (await api.http.get("/v1/billing/alerts", headers=other.headers)).status_code == 200
    assert (await api.http.get("/account", headers=busy.headers)).status_code == 429


@pytest.mark.slow
async def test_test_alerts_have_a_rate_for_each_tenant(api: Api) -> None:
    busy, other = [await api.tenant_admin() for _ in range(2)]
    path = "/v1/billing/alerts/endpoint"
    for admin in (busy, other):
        await api.http.put(path, headers=admin.headers, json={"url": "https://app.example.com/hooks"})
    admins = [await admin_of(api, busy) for _ in range(TESTS_PER_MINUTE + 1)]  # a key's own rate is not the point
    sent = [await api.http.post(f"{path}/test", headers=admin.headers) for admin in admins]
    assert [answer.status_code for answer in sent[:-1]] == [202] * TESTS_PER_MINUTE
    assert refused(sent[-1]) == (429, "rate_limited", True)
    assert (await api.http.post(f"{path}/test", headers=other.headers)).status_code == 202


@pytest.mark.slow
async def test_a_tenant_without_a_plan_has_the_defaults_until_it_has_something_else(api: Api) -> None:
    user = await api.books.account()
    root = await api.books.account(scopes=PLATFORM)
    limits = (await api.http.get("/v1/limits", headers=user.headers)).json()
    assert [(one["scope"], one["meter"], one["window"], one["limit"]) for one in limits["windows"]] == [
        ("user", "requests", "minute", 70),
        ("tenant", "spend", "day", 1),
    ]
    assert limits["concurrency"]["limit"] == 7
    assert (await chat(api, user)).json()["code"] == "input_exceeds_limit"

    path = f"/v1/admin/tenants/{user.tenant_id}/limits"
    shown = (await api.http.get(path, headers=root.headers)).json()
    assert (shown["source"], shown["concurrency"]) == ("default", 9)
    await api.http.put(path, headers=root.headers, json={"limits": [], "concurrency": None})
    assert (await api.http.get(path, headers=root.headers)).json()["source"] == "set"
    assert (await chat(api, user)).json()["code"] == "upstream_unreachable", "what was set replaces the default"


async def test_the_defaults_hold_where_postgres_admits(api: Api) -> None:
    user = await api.books.account()
    runtime = api.app.state.runtime
    runtime.metering.postgres_grants.note_fallback(user.tenant_id, 60)
    await runtime.metering.postgres_grants.admit(  # Postgres takes the tenant, for a process that cannot see Redis
        replace(
            await runtime.metering.admission._query(await runtime.directory.authenticate(user.key), SMALL),
            redis_unreachable=True,
        )
    )
    assert (await chat(api, user)).json()["code"] == "input_exceeds_limit"
