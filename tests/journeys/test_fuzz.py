"""Every route of the OpenAPI document under fire: valid, nearly valid and senseless requests, with a key for anything.

No answer is a 5xx, every error has the one documented shape, and a refused request stores nothing.
"""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

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
from tests.harness import Account, Api, Books

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
    "usage_requests",
    "usage_entries",
    "usage_daily",
    "usage_meters",
    "audit_log",
)


@pytest.fixture(scope="session")
def almighty(story_database: str) -> Account:
    """A key that may do everything, so that the fuzz gets past the door; it has a settled request."""

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


def request_of(account: Account) -> UUID:
    """The id of the account's request: of the moment that its key was made."""
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
    method: str, path: str, mode: GenerationMode, api: Api, almighty: Account, story_database: str
) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=api.url)

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
        before = asyncio.run(_rows(story_database))
        response = case.call(headers=almighty.headers, timeout=30)
        assert response.status_code < 500, response.text
        assert response.headers["x-request-id"][0]
        if response.status_code >= 400:
            assert response.headers["content-type"][0].startswith("application/problem+json"), response.text
            problem = response.json()
            assert problem.keys() >= PROBLEM_FIELDS
            assert problem["status"] == response.status_code
            assert asyncio.run(_rows(story_database)) == before, "a refused request left a trace"

    with suppress(Unsatisfiable):  # a route that takes nothing cannot be asked wrongly
        fire()


async def _rows(database_url: str) -> list[int]:
    books = Books(database_url)
    try:
        counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
        (row,) = await books.fetch(f"SELECT {counts}")
        return list(row.values())
    finally:
        await books.close()
