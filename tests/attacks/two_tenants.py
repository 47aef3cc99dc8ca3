"""The stage of `tests.attacks.noisy_neighbour`: a server, a greedy tenant and a modest one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2

from core.clock import now_ms
from core.tenancy.principal import Scope
from metering.quota.windows import Calendar
from tests.harness import Account, Api, Books, Simulator, client


@dataclass
class Stage:
    """The server, the two tenants and their users."""

    api: Api
    books: Books
    simulator: Simulator
    http: httpx2.AsyncClient
    modest: Account
    modest_admin: Account
    greedy: Account
    greedy_admin: Account


@asynccontextmanager
async def two_tenants(api: Api, database: str, simulator: Simulator) -> AsyncIterator[Stage]:
    """Creates both tenants, with an admin each and a large report of the greedy one."""
    books = Books(database)
    try:
        modest, greedy = await books.account(), await books.account(scopes=[Scope.CHAT, Scope.USAGE_READ])
        admins = [
            await books.account(scopes=[Scope.TENANT_ADMIN, Scope.USAGE_READ], tenant_id=account.tenant_id)
            for account in (modest, greedy)
        ]
        await _generate(books, greedy)
        async with client(api.url) as http:
            yield Stage(api, books, simulator, http, modest, admins[0], greedy, admins[1])
    finally:
        await books.close()


async def _generate(books: Books, account: Account) -> None:
    """Inserts a report of the greedy tenant that fills every buffer: 2,000 users on each day of this month."""
    today = Calendar("Asia/Kolkata").date_of(now_ms())
    async with books.connection() as connection:
        await connection.execute(
            "INSERT INTO users (tenant_id, id, external_id)"
            " SELECT $1, gen_random_uuid(), 'user-' || n FROM generate_series(1, 2000) n",
            account.tenant_id,
        )
        await connection.execute(
            "INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, requests, input_tokens)"
            " SELECT $1, u.id, d::date, to_char(d, 'YYYY-MM'), $2, 'claude-sonnet-4-6', 1, 500 FROM users u"
            " CROSS JOIN generate_series($3::date, $4::date, interval '1 day') d WHERE u.tenant_id = $1",
            account.tenant_id,
            account.key_id,
            today.replace(day=1),
            today,
        )
