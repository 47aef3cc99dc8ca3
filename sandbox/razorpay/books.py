"""Everything that the simulated Razorpay knows, and how it is found. In memory; ids never repeat."""

import secrets
import string
from dataclasses import dataclass, field
from typing import TypeVar

from sandbox.razorpay.entities import (
    Addon,
    Customer,
    Dispute,
    Event,
    Invoice,
    Item,
    Json,
    Link,
    Order,
    Payment,
    Plan,
    Refund,
    Subscription,
)
from sandbox.razorpay.refusals import unknown

BASE62 = string.ascii_letters + string.digits
ID_LENGTH = 14
Entity = TypeVar("Entity")


@dataclass(kw_only=True)
class Settings:
    """How this Razorpay behaves where the facts leave it open, or where methods differ."""

    debit_delay_s: dict[str, int] = field(default_factory=lambda: {"upi": 0, "emandate": 86_400})
    """From a cycle's start to its debit. UPI may debit until 21:00 or the next day; e-mandate waits for the bank."""
    cap_paise: dict[str, int] = field(default_factory=lambda: {"upi": 1_500_000, "card_domestic": 1_500_000})
    """Above this a debit without the payer fails."""
    indian_customer_ids: bool = False
    """Whether subscriptions by Indian methods get a `customer_id`; real ones were seen without."""
    indian_cards_in_events: bool = True
    """Whether subscription events carry the `card` of an Indian card; real ones were seen without."""
    authenticated_events: bool = True
    """Whether `subscription.authenticated` is sent; the docs contradict themselves."""
    expiry_lag_s: int = 0
    """From `expire_by` to the status saying so; 188 to 322 s were seen."""
    refund_fails: int = 0
    """So many of the next refunds end as `failed`."""


@dataclass(kw_only=True)
class Books:
    """The account: what was made in it, oldest first."""

    account_id: str
    base_url: str = ""
    key_secret: str = ""
    secret: str = ""
    """The webhook secret of now."""
    old_secret: str = ""
    settings: Settings = field(default_factory=Settings)
    plans: dict[str, Plan] = field(default_factory=dict)
    customers: dict[str, Customer] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    addons: dict[str, Addon] = field(default_factory=dict)
    invoices: dict[str, Invoice] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    payments: dict[str, Payment] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    disputes: dict[str, Dispute] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    """Short code -> the id of what is paid there."""
    refund_keys: dict[str, tuple[Json, str]] = field(default_factory=dict)
    """Idempotency key and payment -> the request, and the id of its refund."""
    events: list[Event] = field(default_factory=list)

    def page(self, target: str) -> str:
        """Makes the short address of what has this id."""
        code = "".join(secrets.choice(BASE62) for _ in range(8))
        self.pages[code] = target
        return f"{self.base_url}/rzp/{code}"


def new_id(prefix: str) -> str:
    """An id as Razorpay makes them; without a prefix for events."""
    tail = "".join(secrets.choice(BASE62) for _ in range(ID_LENGTH))
    return f"{prefix}_{tail}" if prefix else tail


def find(kept: dict[str, Entity], key: str) -> Entity:
    """What has this id; raises Refused."""
    if key not in kept:
        raise unknown(key.partition("_")[0])
    return kept[key]
