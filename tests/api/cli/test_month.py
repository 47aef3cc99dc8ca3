"""The invented month of `naka up`: its times, and the bodies that it sends."""

import json
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from api.cli.processes.month import CUSTOMERS, DAYS, asks, moments

ZONE = ZoneInfo("Asia/Kolkata")
AT_NIGHT, AT_NOON = datetime(2026, 12, 1, 20, 30, tzinfo=UTC), datetime(2026, 3, 1, 6, 30, tzinfo=UTC)


@pytest.mark.parametrize("now", [AT_NIGHT, AT_NOON])
def test_people_ask_from_the_first_day_until_now(now: datetime) -> None:
    times = moments(now, ZONE)
    assert times == sorted(times)
    assert now - timedelta(days=DAYS) < times[0] < now - timedelta(days=DAYS - 2)
    assert now - timedelta(days=1) < times[-1] < now
    assert {at.date() for at in times} >= {(times[0] + timedelta(days=day)).date() for day in range(DAYS - 1)}


def test_every_customer_asks_and_the_same_each_time() -> None:
    asked = [ask for at in moments(AT_NOON, ZONE) for ask in asks(at)]
    assert {(ask.slug, ask.person.name) for ask in asked} == {
        (customer.slug, person.name) for customer in CUSTOMERS for person in customer.people
    }
    assert asked == [ask for at in moments(AT_NOON, ZONE) for ask in asks(at)]
    assert 400 < len(asked) < 900, "it takes seconds"


def test_the_simulator_can_read_every_order() -> None:
    for ask in asks(moments(AT_NOON, ZONE)[0]):
        text = ask.body["message"] if ask.person.chats else ask.body["messages"][0]["content"]
        found = re.fullmatch(r"[^\[]+ \[\[sim (.*)\]\]", text)
        assert found is not None
        orders = json.loads(found[1])
        assert orders["output_tokens"] <= (2_000 if ask.person.chats else ask.body["max_tokens"])
