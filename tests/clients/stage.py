"""A complete server for the clients: Postgres, Valkey, the simulator and the API, and reads of its access log."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from core.postgres.database import Database
from metering.pricing.price import Band
from metering.pricing.price_list import add_price
from tests.complete_server import complete_server
from tests.harness import ACTOR, Account, Api, Simulator


@dataclass(frozen=True)
class Stage:
    """The servers. The API logs at `info`, for the number of requests that a client makes."""

    api: Api
    simulator: Simulator

    def answers(self, account: Account) -> list[int]:
        """The statuses that Naka answered to the account's tenant."""
        return [line["status"] for line in self._requests() if line.get("tenant") == str(account.tenant_id)]

    def unauthenticated(self) -> int:
        """The number of requests so far that were refused for their key."""
        return sum(line["status"] == HTTPStatus.UNAUTHORIZED for line in self._requests())

    def _requests(self) -> Iterator[dict[str, Any]]:
        for text in self.api.log.read_text().splitlines():
            line = json.loads(text) if text.startswith("{") else {}
            if line.get("event") == "request" and line["path"].startswith("/v1/messages"):
                yield line


@contextmanager
def stage() -> Iterator[tuple[Stage, str]]:
    """Starts everything for the block; yields the database's URL with it."""
    with complete_server(_price, LOG_LEVEL="info", HANGUP_WAIT_S="2") as (api, database_url, simulator):
        yield Stage(api, simulator), database_url


async def _price(database_url: str) -> None:
    """Gives a model of the SDK's own tests a price; it never had one on our list."""
    database = Database(database_url)
    band = Band(*([0] + [1_000] * 5))
    try:
        async with database.session() as session:
            start = datetime(2026, 1, 1, tzinfo=UTC)
            await add_price(session, ACTOR, model="claude-mythos-preview", effective_from=start, bands=[band])
    finally:
        await database.close()
