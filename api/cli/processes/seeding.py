"""Seeding: plays the invented month (`month`) against the running API, on the simulators' clock, until now.

People ask through `/chat` and `/v1/messages`, admins subscribe and pay as a browser does, and billing's duties run as a
worker would run them, so rows, sums, bills and both simulators' ledgers agree as they do in production. The clock is at
the present afterwards, also after a failure: SeedFailed, with what there is so far.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import groupby
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import aiohttp

from api.cli.processes.demo import ACTOR, ADMIN_SCOPES, USER_SCOPES, demo_key, demo_tenant
from api.cli.processes.month import CUSTOMERS, Ask, Customer, asks, moments
from api.worker import billing_duties
from billing.context import ALERTS, COLLECT, LEVELS, RAZORPAY, THRESHOLDS, BillingContext, build_billing_context
from core.clock import now_ms
from core.errors import NakaError
from core.postgres.database import Database
from core.queue import Duty
from core.redis.changes import Changes
from core.redis.client import connect_redis
from core.settings import Settings
from core.tenancy.accounts import create_user
from core.tenancy.principal import Scope
from metering.quota.windows import Calendar

_TIMEOUT_S = 30
_AT_ONCE = 16
_SAID = 200
"""Characters of a refusal that are shown."""
_FOLLOWED_S = 0.01
"""Processes read the clock's file every 5 ms."""
_AFTER_S = 90
"""Seconds past a period's end at which the duties run: a worker runs them every minute."""
_ROUNDS = 2
"""Webhooks, duties, and again what the first round caused."""
_LOOKS = (THRESHOLDS, COLLECT, LEVELS, ALERTS)
"""Duties that bill at a threshold and send alerts."""
_LOOKS_EVERY = 3
"""Days between two runs of them."""
_REFUSED = (HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
"""Answers of a limit."""

Tell = Callable[[str], None]


class SeedFailed(NakaError):
    """The demo's month could not be played to its end."""


@dataclass(slots=True)
class Seeded:
    """A played month."""

    days: int = 0
    answered: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Stage:
    """The running parts, and the key of each person by tenant and name."""

    http: aiohttp.ClientSession
    api_url: str
    context: BillingContext
    duties: Sequence[Duty]
    keys: dict[tuple[str, str], str]
    done: Seeded = field(default_factory=Seeded)


async def seed_month(settings: Settings, url: str, keys: dict[tuple[str, str], str], tell: Tell) -> Seeded:
    """Plays the month. `keys`: of the people who have one already, by tenant and name. Raises SeedFailed.

    This process and the API follow the simulators' clock, which is at the first day.
    """
    database, redis = Database(settings.postgres), connect_redis(settings.redis_url, timeout_s=_TIMEOUT_S)
    context = build_billing_context(settings, database, Changes(redis))
    duties = [duty for duty in billing_duties(context) if duty.name != RAZORPAY]
    timeout, connector = aiohttp.ClientTimeout(total=_TIMEOUT_S), aiohttp.TCPConnector(limit=_AT_ONCE)
    try:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            stage = _Stage(http, url, context, duties, dict(keys))
            try:
                await _play(stage, tell)
            finally:
                await _advance(stage, "now")
    except (NakaError, aiohttp.ClientError, TimeoutError, KeyError) as error:
        raise SeedFailed(f"the demo's month is not complete: {type(error).__name__}: {error}") from error
    finally:
        context.razorpay.close()
        await redis.aclose()
        await database.close()
    return stage.done


async def _play(stage: _Stage, tell: Tell) -> None:
    zone = stage.context.zone
    tell("demo data: the customers")
    await _begin(stage, zone)
    period_end_s = await _period_end_s(stage)
    for day, group in groupby(moments(datetime.now(UTC), zone), datetime.date):
        tell(f"demo data: {day:%d %B}, {stage.done.answered} requests")
        stage.done.days += 1
        times = [*group]
        while period_end_s < times[0].timestamp():
            await _advance(stage, period_end_s)
            await _turn(stage)
            await _settle_bills(stage)
            period_end_s = await _period_end_s(stage)
        for at in times[:-1]:
            await _ask_all(stage, at)
        # As in a worker, these duties run beside the requests; most of the day's usage is there.
        await _ask_all(stage, times[-1], *(_LOOKS if stage.done.days % _LOOKS_EVERY == 0 else ()))
    await _advance(stage, "now")
    await _turn(stage)


async def _begin(stage: _Stage, zone: ZoneInfo) -> None:
    """Creates the tenants with their people, who subscribe, register a mandate and top up."""
    for customer in CUSTOMERS:
        async with stage.context.database.session() as session:
            tenant_id = await demo_tenant(session, customer, zone)
        for person in customer.people:
            if (customer.slug, person.name) not in stage.keys:
                stage.keys[customer.slug, person.name] = await _key(
                    stage, tenant_id, person.name, ADMIN_SCOPES if person is customer.people[0] else USER_SCOPES
                )
        await _call(stage, customer, "PUT", f"/v1/admin/tenants/{tenant_id}/tag-keys/feature", max_values=50)
        if customer.plan is not None:
            view = await _call(stage, customer, "POST", "/v1/billing/subscription", plan=customer.plan)
            await _pay(stage, view["waiting"]["pay_url"], customer.method)
        if customer.has_mandate:
            view = await _call(stage, customer, "POST", "/v1/billing/mandate", method="upi")
            await _pay(stage, view["waiting"]["pay_url"], "upi")
        if customer.top_up_paise:
            asked = {"paise": customer.top_up_paise, "instrument": "qr_code"}
            top_up = await _call(stage, customer, "POST", "/v1/billing/wallet/top-ups", **asked)
            await _pay(stage, top_up["pay_url"], "upi")
    await _turn(stage)


async def _key(stage: _Stage, tenant_id: UUID, name: str, scopes: list[Scope]) -> str:
    """The key of a new user."""
    async with stage.context.database.session() as session:
        user = await create_user(session, ACTOR, tenant_id, external_id=name)
        return await demo_key(session, user, scopes, name="laptop")


async def _ask_all(stage: _Stage, at: datetime, *duties: str) -> None:
    """Sends the requests of a moment at once, while the duties of these names run."""
    await _advance(stage, at.timestamp())
    await asyncio.gather(_run(stage, *duties), *(_ask(stage, ask) for ask in asks(at)))


async def _ask(stage: _Stage, ask: Ask) -> None:
    """Sends a request, and reads the answer to its end, which follows its settlement."""
    headers = {
        "x-api-key": stage.keys[ask.slug, ask.person.name],
        "anthropic-version": "2023-06-01",
        "naka-tags": f"feature={ask.feature}",
    }
    path = "/chat" if ask.person.chats else "/v1/messages"
    status, text = await _send(stage, "POST", stage.api_url + path, json=ask.body, headers=headers)
    if status == HTTPStatus.OK:
        stage.done.answered += 1
    elif status in _REFUSED:
        stage.done.refused += 1
    else:
        raise SeedFailed(f"{path} answered {status}: {text[:_SAID]}")


async def _period_end_s(stage: _Stage) -> float:
    """Returns the time at which the duties bill the next period: `_AFTER_S` behind its end."""
    views = [
        await _call(stage, customer, "GET", "/v1/billing/subscription")
        for customer in CUSTOMERS
        if customer.plan is not None
    ]
    ends_s = [datetime.fromisoformat(view["current"]["current_end"]).timestamp() for view in views]
    month = Calendar(stage.context.zone.key).month(now_ms() - _AFTER_S * 1000)  # of tenants without a subscription
    return min(*ends_s, month.ends_ms / 1000) + _AFTER_S


async def _settle_bills(stage: _Stage) -> None:
    """Pays what is due of the customers that pay."""
    for customer in CUSTOMERS:
        if not customer.settles:
            continue
        bills = await _call(stage, customer, "GET", "/v1/billing/bills")
        for bill in bills["items"]:
            if bill["pay_url"] is not None:
                await _pay(stage, bill["pay_url"], customer.method)
                await _turn(stage)


async def _turn(stage: _Stage) -> None:
    """Delivers Razorpay's webhooks and runs billing's duties, as a worker does every minute."""
    for _ in range(_ROUNDS):
        await _sim(stage, "webhooks/drain")
        for duty in stage.duties:
            await duty.run()


async def _run(stage: _Stage, *names: str) -> None:
    """Runs the duties of these names."""
    for duty in stage.duties:
        if duty.name in names:
            await duty.run()


async def _pay(stage: _Stage, pay_url: str, method: str) -> None:
    """Sends the form of one of Razorpay's pages."""
    status, _ = await _send(stage, "POST", pay_url, data={"method": method, "outcome": "ok"})
    if status >= HTTPStatus.BAD_REQUEST:
        raise SeedFailed(f"Razorpay's page answered {status}")


async def _call(stage: _Stage, customer: Customer, method: str, path: str, /, **body: Any) -> Any:
    """Calls the API as the customer's admin."""
    headers = {"x-api-key": stage.keys[customer.slug, customer.people[0].name]}
    status, text = await _send(stage, method, stage.api_url + path, json=body or None, headers=headers)
    if status >= HTTPStatus.BAD_REQUEST:
        raise SeedFailed(f"{path} answered {status}: {text[:_SAID]}")
    return json.loads(text)


async def _advance(stage: _Stage, to: float | str) -> None:
    """Moves the clock, unless it is there already, and waits until every process has read it."""
    if isinstance(to, float) and to * 1000 <= now_ms():
        return
    await _sim(stage, "clock/advance", to=to)
    await asyncio.sleep(_FOLLOWED_S)


async def _sim(stage: _Stage, control: str, **body: Any) -> None:
    url = f"{stage.context.settings.razorpay_base_url}/_sim/{control}"
    status, text = await _send(stage, "POST", url, json=body)
    if status != HTTPStatus.OK:
        raise SeedFailed(f"the Razorpay simulator answered {status}: {text[:_SAID]}")


async def _send(stage: _Stage, method: str, url: str, **how: Any) -> tuple[int, str]:
    """Sends a request, and returns the status and the whole body."""
    async with stage.http.request(method, url, allow_redirects=False, **how) as answer:
        return answer.status, await answer.text()
