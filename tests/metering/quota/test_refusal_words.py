"""The words of a refusal by a limit: what is used, when it resets, what to do; of spend no amounts."""

import pytest

from metering.quota.limits import BillMeter, EffectiveLimit, LimitScope, Meter
from metering.quota.query import Refused
from metering.quota.refusal_words import words_of
from metering.quota.windows import WindowKind

USER, TENANT = LimitScope.USER, LimitScope.TENANT
MINUTE, DAY, PERIOD = WindowKind.MINUTE, WindowKind.DAY, WindowKind.PERIOD
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ASK = "To continue before, ask your admin for a higher limit."
SHORTER = "Shorten it, or ask for a shorter answer."
PLAN = "To continue before, an admin of your account can choose a larger plan."


def words(limit: EffectiveLimit | None, cause: str, used: int, wait_ms: int = 1_000, *, of_user: bool = True) -> str:
    refused = Refused(1_000, cause, 0, of_user, 1_000 + wait_ms, worth_counting=False, holds_expired=False, used=used)
    return words_of(refused, limit)


@pytest.mark.parametrize(
    ("limit", "cause", "used", "wait_ms", "says"),
    [
        (
            EffectiveLimit(USER, Meter.TOKENS, DAY, 1_500),
            "used",
            1_500,
            7 * HOUR_MS + 60_001,
            f"You've used today's 1,500 tokens. They reset at 00:00, in 7 h 2 min. {ASK}",
        ),
        (
            EffectiveLimit(USER, Meter.TOKENS, DAY, 1_500),
            "used",
            1_300,
            60_000,
            (
                "You've used 1,300 of today's 1,500 tokens, and this request needs more than the rest. "
                f"They reset at 00:00, in 1 min. {ASK}"
            ),
        ),
        (
            EffectiveLimit(TENANT, Meter.OUTPUT, PERIOD, 200_000),
            "used",
            200_012,
            11 * DAY_MS + 1,
            f"Your account has used this period's 2,00,000 output tokens. They reset in 12 days. {PLAN}",
        ),
        (
            EffectiveLimit(TENANT, BillMeter.CHARGE, PERIOD, 500_050, ((0, 1),) * 5),
            "used",
            499_990_000_000,
            2 * HOUR_MS,
            (
                "Your account has used ₹4,999.90 of this period's ₹5,000.50 of overage, and this request needs more "
                f"than the rest. It resets in 2 h 0 min. {PLAN}"
            ),
        ),
        (
            EffectiveLimit(USER, Meter.REQUESTS, MINUTE, 60),
            "used",
            60,
            12_000,
            "You've used this minute's 60 requests. They reset in 12 s. Try again then.",
        ),
        (
            EffectiveLimit(TENANT, Meter.SPEND, DAY, 50_000_000),
            "used",
            49_000_000_000,
            HOUR_MS,
            (
                "Your account has used today's budget for model usage, or what is left is too little for this request. "
                f"It resets at 00:00, in 1 h 0 min. {PLAN}"
            ),
        ),
        (
            EffectiveLimit(USER, Meter.TOKENS, PERIOD, 1_500),
            "held",
            900,
            1_000,
            (
                "Your running requests hold the rest of this period's 1,500 tokens; 900 used. "
                "Try again when one of them has ended."
            ),
        ),
        (
            EffectiveLimit(TENANT, Meter.SPEND, PERIOD, 1),
            "held",
            1,
            1_000,
            (
                "Your account's running requests hold the rest of this period's budget for model usage. "
                "Try again when one of them has ended."
            ),
        ),
        (
            EffectiveLimit(USER, Meter.TOKENS, DAY, 1_500),
            "never",
            0,
            1_000,
            f"This request is too large for your limit of 1,500 tokens per day. {SHORTER}",
        ),
        (
            EffectiveLimit(TENANT, Meter.SPEND, PERIOD, 1),
            "never",
            0,
            1_000,
            f"This request is too large for your account's budget for model usage per billing period. {SHORTER}",
        ),
    ],
)
def test_it_says_what_is_used_and_when_it_resets(
    limit: EffectiveLimit, cause: str, used: int, wait_ms: int, says: str
) -> None:
    assert words(limit, cause, used, wait_ms) == says


def test_concurrency_says_how_many_run() -> None:
    assert words(None, "held", 10) == (
        "You have 10 requests running, the most at a time. Try again when one of them has ended."
    )
    assert words(None, "held", 100, of_user=False).startswith("Your account has 100 requests running")
    assert words(None, "never", 0) == "Requests are blocked for you. Ask your admin."
