"""Usage for the reports' stories: requests of some days, settled as the journal settles them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.clock import now_ms, to_datetime
from core.ids import uuid7
from metering.journal.journal import settle_batch
from metering.journal.partitions import ensure_partitions
from metering.journal.records import Outcome, Settlement, Source
from metering.pricing.tokens import Usage
from tests.harness import Account, Books
from tests.metering.rows import KOLKATA, PRICE

DAY_MS = 86_400_000
_MODELS = ("claude-sonnet-4-6", "claude-haiku-4-5", "claude-opus-4-8")
_OUTCOMES = (Outcome.COMPLETED, Outcome.CLIENT_GONE, Outcome.UPSTREAM_BROKE, Outcome.UPSTREAM_REFUSED)
_OPENED = """
INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, period_id, day, opened_at, model_asked)
VALUES ($1, $2, $3, $4, 'open', $5, $6, $7, $8)
"""


@dataclass(frozen=True)
class Used:
    """A settled request, and whose it is."""

    account: Account
    at_ms: int
    settlement: Settlement


def drawn(seed: int, accounts: Sequence[Account], *, days: int, each: int, last: int = 0) -> list[Used]:
    """Requests of some days, at most 28, the last of them so long ago: who stands later in the list uses less."""
    draw = random.Random(seed)
    noon = KOLKATA.day(now_ms()).starts_ms + DAY_MS // 2
    found = []
    for rank, account in enumerate(accounts, 1):
        for _ in range(max(1, each // rank)):
            at = min(noon - (last + draw.randrange(days)) * DAY_MS + draw.randrange(3_600_000), now_ms())
            found.append(used(draw, account, at, scale=400 // rank))
    return found


def used(draw: random.Random, account: Account, at_ms: int, *, scale: int = 100, model: str | None = None) -> Used:
    """One request of a moment."""
    outcome = draw.choices(_OUTCOMES, (90, 4, 3, 3))[0]
    is_empty = outcome == Outcome.UPSTREAM_REFUSED
    classes = [draw.randint(scale // 2, scale) for _ in range(5)]
    rest = {"thinking_tokens": classes[1] // 2, "web_searches": classes[0] % 3}
    usage = Usage() if is_empty else Usage(*classes, **rest)
    return Used(
        account,
        at_ms,
        Settlement(
            account.tenant_id,
            uuid7(at_ms),
            account.user_id,
            outcome,
            Source.FINAL if outcome == Outcome.COMPLETED else Source.COUNTED,
            model or draw.choice(_MODELS),
            model_known=True,
            requests=1,
            usage=usage,
            cost_nano_usd=PRICE.cost_nano_usd(usage),
        ),
    )


async def settle(books: Books, found: Sequence[Used]) -> None:
    """Opens and settles them, rollups and meters included."""
    async with books.connection() as connection:
        await ensure_partitions(connection)
        rows = [
            (
                each.account.tenant_id,
                each.settlement.id,
                each.account.user_id,
                each.account.key_id,
                KOLKATA.month(each.at_ms).name,
                KOLKATA.date_of(each.at_ms),
                to_datetime(each.at_ms),
                each.settlement.model,
            )
            for each in found
        ]
        await connection.executemany(_OPENED, rows)
        settled = await settle_batch(connection, [each.settlement for each in found], 1)
        assert len(settled) == len(found)
