"""Fuzzing of every route of the OpenAPI document: valid, nearly valid and nonsensical requests, with full access.

No answer is a 5xx, every error is a problem, and a refused request stores nothing.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.generation.jsonschema import builder  # noqa: F401 - 3.11 cannot parse it deep within a case

from api.app import create_app
from core.ids import uuid7_floor, uuid7_ms
from core.settings import Settings
from core.tenancy.principal import Scope
from tests import servers
from tests.harness import Account, Api, Books
from tests.servers import asyncpg_dsn

EXAMPLES = 4
SETTLED = (
    "INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, price_id, period_id, day, opened_at, model,"
    " requests, output_tokens, cost_nano_usd) SELECT $1, $2, $3, $4, 'settled', p.id, '2026-11', current_date, now(),"
    " p.model, 1, 1000, 1000000000 FROM prices p LIMIT 1"
)
PROBLEM_FIELDS = {"type", "title", "status", "detail", "code", "request_id"}
TABLES = (
    "tenants",
    "users",
    "api_keys",
    "plans",
    "prices",
    "limit_sets",
    "tag_keys",
    "usage_requests",
    "usage_entries",
    "usage_daily",
    "usage_meters",
)
CHANGES = "audit_log WHERE action <> 'key.refused'"
"""Failed sign-ins of earlier stories are summed up and written later."""


@pytest.fixture(scope="session")
def almighty(story_database: str) -> Account:
    """A key with all scopes, so that fuzzing passes authorisation; it has a settled request."""

    async def make() -> Account:
        books = Books(story_database)
        try:
            account = await books.account(scopes=list(Scope))
            ids = (account.tenant_id, request_of(account), account.user_id, account.key_id)
            await books.fetch(SETTLED, *ids)
            return account
        finally:
            await books.close()

    return asyncio.run(make())


@pytest.fixture(scope="session")
def rows(story_database: str) -> Iterator[Callable[[], list[int]]]:
    """Counts the rows of each table, on a connection of its own."""
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in (*TABLES, CHANGES))
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(asyncpg_dsn(servers.owner(story_database))))
        yield lambda: list(runner.run(connection.fetch(f"SELECT {counts}"))[0].values())
        runner.run(connection.close())


def request_of(account: Account) -> UUID:
    """The id of the account's request."""
    return uuid7_floor(uuid7_ms(account.key_id))


DOCUMENT = create_app(
    Settings(
        _env_file=None, database_url="postgresql://nowhere/naka", redis_url="redis://nowhere", anthropic_api_key="-"
    )
).openapi()
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_breaks_a_route(
    method: str, path: str, mode: GenerationMode, api: Api, almighty: Account, rows: Callable[[], list[int]]
) -> None:
    schema = _schema(api.url)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def fire(case: schemathesis.Case[Any]) -> None:
        real = {
            "tenant_id": str(almighty.tenant_id),
            "user_id": str(almighty.user_id),
            "request_id": str(request_of(almighty)),
        }
        if mode is GenerationMode.POSITIVE and case.path_parameters:
            case.path_parameters |= {name: real[name] for name in real.keys() & case.path_parameters.keys()}
        before = rows()
        response = case.call(headers=almighty.headers, timeout=30)
        assert response.status_code < 500, response.text
        assert response.headers["x-request-id"][0]
        if response.status_code >= 400:
            assert response.headers["content-type"][0].startswith("application/problem+json"), response.text
            problem = response.json()
            assert problem.keys() >= PROBLEM_FIELDS
            assert problem["status"] == response.status_code
            assert rows() == before, "a refused request left a trace"

    with suppress(Unsatisfiable):  # a route that takes nothing cannot be asked wrongly
        fire()


@cache
def _schema(url: str) -> Any:
    """The document as schemathesis reads it, for the API at `url`."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=url)
    return schema
