"""Levels: one alert per window and version of the limit. Pure."""

from dataclasses import replace
from uuid import UUID

import pytest

from billing.alerts.thresholds import Bound, MonitoredLimit

ONE = MonitoredLimit(Bound.ALLOWANCE, None, "output_tokens", "period", "2026-11", 1_000, 0, "team@1:1000")


@pytest.mark.parametrize(
    ("limit", "used", "levels"),
    [
        (1_000, 499, ()),
        (1_000, 500, (50,)),
        (1_000, 799, (50,)),
        (1_000, 800, (50, 80)),
        (1_000, 999, (50, 80)),
        (1_000, 1_000, (50, 80, 100)),
        (1_000, 9_999, (50, 80, 100)),
        (5, 2, ()),
        (5, 3, (50,)),
        (5, 4, (50, 80)),
        (1, 1, (50, 80, 100)),
        (0, 5, ()),
        (10**15, 8 * 10**14 - 1, (50,)),
    ],
)
def test_what_is_reached(limit: int, used: int, levels: tuple[int, ...]) -> None:
    assert replace(ONE, limit=limit, used=used).reached() == levels


def test_what_makes_an_alert_another_one() -> None:
    same = replace(ONE, used=900)
    assert same.key(80) == ONE.key(80), "what was used is not part of it"
    others = [
        replace(ONE, bound=Bound.LIMIT),
        replace(ONE, user_id=UUID(int=1)),
        replace(ONE, meter="input_tokens"),
        replace(ONE, window="day"),
        replace(ONE, window_name="2026-12"),
        replace(ONE, version="team@2:1000"),
    ]
    assert len({other.key(80) for other in others} | {ONE.key(80), ONE.key(50)}) == len(others) + 2
