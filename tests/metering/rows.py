"""Records for the journal, as admission and settlement would make them."""

from datetime import date

from core.clock import now_ms
from core.ids import uuid7
from metering.journal.records import OpenRequest, Outcome, Settlement, Source
from metering.pricing.price import Band, Price
from metering.pricing.tokens import Usage
from metering.quota.windows import Calendar
from tests.harness import Account

KOLKATA = Calendar("Asia/Kolkata")
PRICE = Price(uuid7(), "claude-sonnet-4-6", 0, (Band(0, 3_000, 15_000, 300, 3_750, 6_000),))
USAGE = Usage(1, 2, 3, 4, 5, 1, 6)


def today() -> date:
    """The operator's day of now, which may be another than when the run began."""
    return KOLKATA.date_of(now_ms())


def request(account: Account) -> OpenRequest:
    """A request granted now."""
    at = now_ms()
    return OpenRequest(
        tenant_id=account.tenant_id,
        id=uuid7(at),
        user_id=account.user_id,
        key_id=account.key_id,
        epoch=1,
        price_id=PRICE.id,
        plan_version=None,
        period_id=KOLKATA.month(at).name,
        day=KOLKATA.date_of(at),
        opened_ms=at,
        deadline_ms=at + 60_000,
        model=PRICE.model,
        held_prompt_tokens=1,
        held_output_tokens=2,
        held_nano_usd=3,
        held_web_searches=4,
    )


def settlement(opened: OpenRequest, usage: Usage = USAGE) -> Settlement:
    """What it came to."""
    return Settlement(
        opened.tenant_id,
        opened.id,
        opened.user_id,
        Outcome.COMPLETED,
        Source.FINAL,
        PRICE.model,
        model_known=True,
        requests=1,
        usage=usage,
        cost_nano_usd=PRICE.cost_nano_usd(usage),
    )
