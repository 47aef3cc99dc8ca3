"""The invented customers of `naka up`, and what they ask for on each day of a month. Pure; the same for the same days.

Numbers of tokens are what the Anthropic simulator is told to report; the product measures, prices and bills them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from billing.catalogue.profiles import Profile

DAYS = 33
"""A subscription of the first day has a closed period of a month, and a bill that is not due yet."""
_SEED = 14
_WEEKDAY, _WEEKEND = (time(11, 10), time(16, 40)), (time(13, 20),)
_SATURDAY = 5
_QUIET = 6
"""At a weekend there are this many times fewer requests."""
_QUESTIONS = {
    "Summarise this ticket in three sentences.": "documents",
    "Which clauses of this contract mention termination?": "documents",
    "Write a reply to this customer, and offer a call.": "drafts",
    "Why does this query scan the whole table?": "code",
    "Turn these notes into a release announcement.": "drafts",
    "What changed between these two versions?": "documents",
    "Explain this stack trace to a new colleague.": "code",
    "List the open questions of this meeting.": "documents",
}
"""Questions, each with the feature of the customer's product that sends it."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user and its habits: the requests of a working day, and the mean tokens of one. `chats`: on `/chat`."""

    name: str
    model: str
    a_day: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    chats: bool = False


@dataclass(frozen=True, slots=True)
class Customer:
    """A tenant. `plan`: what it subscribes to on the first day; None stays on `own_plan`.

    The first person administers the account; `settles`: it pays its overage by hand, `has_mandate`: by a mandate.
    `top_up_paise`: of its wallet on the first day, by UPI QR code.
    """

    slug: str
    name: str
    profile: Profile
    people: Sequence[Person]
    plan: str | None = None
    own_plan: str = "free"
    method: str = "upi"
    settles: bool = False
    has_mandate: bool = False
    top_up_paise: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `feature`: of the customer's product, a tag."""

    slug: str
    person: Person
    body: dict[str, Any]
    feature: str


def _profile(name: str, line: str, city: str, code: str, state: str) -> Profile:
    email = f"billing@{name.split(maxsplit=1)[0].lower()}.example"
    return Profile(name, (line,), city, code, "IN", email, state=state, contact="+919812345670")


_SONNET, _HAIKU, _OPUS = "claude-sonnet-4-6", "claude-haiku-4-5", "claude-opus-4-6"
DEMO = Customer(
    "demo",
    "Demo",
    _profile("Demo Customer Private Limited", "2 Marine Drive", "Mumbai", "400020", "27"),
    (
        Person("grace", _SONNET, 1, 4_000, 900, chats=True),
        Person("ada", _SONNET, 2, 6_000, 1_200, chats=True),
        Person("linus", _HAIKU, 3, 26_000, 4_600, 12_000),
        Person("barbara", _HAIKU, 3, 24_000, 4_200),
    ),
    plan="starter",
)
"""The customer whose keys `naka up` prints."""
CUSTOMERS = (
    DEMO,
    Customer(
        "zenith",
        "Zenith Analytics",
        _profile("Zenith Analytics Private Limited", "14 MG Road", "Bengaluru", "560001", "29"),
        (
            Person("priya", _HAIKU, 3, 64_000, 11_000, 90_000),
            Person("arjun", _SONNET, 3, 30_000, 6_000, 60_000),
            Person("meera", _HAIKU, 4, 36_000, 5_500),
            Person("rahul", _OPUS, 1, 30_000, 4_500, 20_000),
        ),
        plan="team",
        method="card_domestic",
        settles=True,
        has_mandate=True,
    ),
    Customer(
        "nimbus",
        "Nimbus Tools",
        _profile("Nimbus Tools LLP", "9 Park Street", "Kolkata", "700016", "19"),
        (Person("asha", _HAIKU, 3, 13_000, 2_000, chats=True), Person("dev", _HAIKU, 2, 9_000, 1_500, chats=True)),
        own_plan="prepaid",
        top_up_paise=200_000,
    ),
    Customer(
        "orbit",
        "Orbit Media",
        _profile("Orbit Media Private Limited", "5 Anna Salai", "Chennai", "600002", "33"),
        (Person("kavya", _HAIKU, 2, 60_000, 9_000),),
        own_plan="metered",
    ),
)


def moments(now: datetime, zone: ZoneInfo) -> list[datetime]:
    """The times of day at which people ask, from `DAYS` before `now` until it. Aware datetimes, in order."""
    first = now.astimezone(zone) - timedelta(days=DAYS)
    days = [first.date() + timedelta(days=number) for number in range(DAYS + 1)]
    found = [
        datetime.combine(day, each, zone)
        for day in days
        for each in (_WEEKEND if day.weekday() >= _SATURDAY else _WEEKDAY)
    ]
    # The last requests end before people come, and the first ones follow the first day's subscriptions.
    return [each for each in found if first + timedelta(hours=1) < each < now - timedelta(minutes=2)]


def asks(at: datetime) -> Iterator[Ask]:
    """The requests of all customers at one of the `moments`."""
    random = Random(f"{_SEED} {at.isoformat()}")  # noqa: S311 - no secret: the same month at each start
    is_weekend = at.weekday() >= _SATURDAY
    share = 1 / _QUIET if is_weekend else 1 / len(_WEEKDAY)
    for customer in CUSTOMERS:
        for person in customer.people:
            wanted = person.a_day * share * random.uniform(0.7, 1.3)
            number = int(wanted) + (random.random() < wanted % 1)
            for _ in range(number):
                yield _ask(customer.slug, person, random)


def _ask(slug: str, person: Person, random: Random) -> Ask:
    """A question for `/chat` or `/v1/messages`, with orders for the simulator."""
    output = _about(person.output_tokens, random)
    script = {
        "input_tokens": _about(person.input_tokens, random),
        "output_tokens": min(output, 2_000) if person.chats else output,
        "cache_read_input_tokens": _about(person.cache_read_tokens, random),
        "words": 4,
        "piece_delay_ms": 0,
    }
    question = random.choice(list(_QUESTIONS))
    text = f"{question} [[sim {json.dumps(script)}]]"
    if person.chats:
        return Ask(slug, person, {"message": text, "model": person.model}, "assistant")
    body = {"model": person.model, "max_tokens": 16_000, "messages": [{"role": "user", "content": text}]}
    return Ask(slug, person, body, _QUESTIONS[question])


def _about(mean: int, random: Random) -> int:
    return int(mean * random.uniform(0.6, 1.4))
