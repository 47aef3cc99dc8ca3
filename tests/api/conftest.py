"""The application in this process, on a database per test, and accounts."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI

from api.app import create_app
from core.logs import configure_logs
from core.settings import Settings
from core.tenancy.principal import Scope
from tests.harness import Account, Books


@dataclass(frozen=True)
class Api:
    """The application, a client of it, and its database."""

    app: FastAPI
    http: httpx2.AsyncClient
    books: Books

    async def call(
        self, account: Account | None, method: str, path: str, *, expect: int | None = None, **how: Any
    ) -> httpx2.Response:
        """Calls `/v1/admin` + `path` with the account's key; fails with the body when it is not `expect`."""
        headers = {} if account is None else account.headers
        answer = await self.http.request(method, f"/v1/admin{path}", headers=headers, **how)
        assert expect in (None, answer.status_code), f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    async def platform_admin(self) -> Account:
        """Creates an operator, in a new tenant."""
        return await self.books.account(scopes=[Scope.PLATFORM_ADMIN])

    async def tenant_admin(self, tenant_id: UUID | None = None) -> Account:
        """Creates an admin of a new tenant, or of the given one."""
        scopes = [Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ]
        return await self.books.account(scopes=scopes, tenant_id=tenant_id)

    async def audit(self, tenant_id: UUID) -> list[str]:
        """Returns the tenant's audited changes over HTTP, oldest first, without sign-ins and reads."""
        rows = await self.books.fetch(
            "SELECT action FROM audit_log WHERE tenant_id = $1 AND actor LIKE 'key:%'"
            " AND action NOT LIKE 'session.%' AND action <> 'payer.read' ORDER BY id",
            tenant_id,
        )
        return [row["action"] for row in rows]


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings without a reachable provider."""
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        anthropic_api_key="never-used",
        store_deadline_s=30,  # a busy machine is no outage
    )


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    """The application, started."""
    configure_logs(level="error", as_json=True)
    app = create_app(settings)
    books = Books(settings.database_url)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://naka.test") as http,
    ):
        yield Api(app, http, books)
    await books.close()
