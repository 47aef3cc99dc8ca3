"""The data of the simulated Razorpay, and lookups. In memory; ids never repeat."""

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
from sandbox.razorpay.instruments.entities import Debit, QrCode, Token
from sandbox.razorpay.refusals import unknown

BASE62 = string.ascii_letters + string.digits
ID_LENGTH = 14
Entity = TypeVar("Entity")


@dataclass(kw_only=True)
class Settings:
    """Behaviour that the documentation leaves open, or that differs by method."""

    debit_delay_s: dict[str, int] = field(default_factory=lambda: {"upi": 0, "emandate": 86_400})
    """Seconds from a cycle's start to its debit; UPI may take until the next day, e-mandates wait for the bank."""
    cap_paise: dict[str, int] = field(default_factory=lambda: {"upi": 1_500_000, "card_domestic": 1_500_000})
    """A debit without the payer fails above this."""
    indian_customer_ids: bool = False
    """Whether subscriptions by Indian methods have a `customer_id`; observed ones had none."""
    indian_cards_in_events: bool = True
    """Whether subscription events contain the `card` of an Indian card; observed ones did not."""
    authenticated_events: bool = True
    """Whether `subscription.authenticated` is sent; the docs are contradictory."""
    expiry_lag_s: int = 0
    """Seconds from `expire_by` to the status `expired`; 188 to 322 s were observed."""
    refund_fails: int = 0
    """Number of next refunds that fail."""
    token_delay_s: dict[str, int] = field(default_factory=lambda: {"upi": 0, "card": 0, "emandate": 86_400})
    """Seconds from the authorisation of a mandate to the bank's answer."""
    notice_s: dict[str, int] = field(default_factory=lambda: {"upi": 90_000, "card": 129_600, "emandate": 172_800})
    """Seconds from a debit's notice to its first try: 25 h for UPI; cards are asked 36 h before."""
    debit_retries: dict[str, int] = field(default_factory=lambda: {"upi": 3})
    retry_s: int = 10_800
    """Seconds between a debit's tries; with three retries the last is 34 h after the notice."""
    late_s: int = 21_600
    """Seconds from the failure of a debit to its late authorisation."""


@dataclass(kw_only=True)
class Books:
    """The entities of the account, oldest first."""

    account_id: str
    base_url: str = ""
    key_secret: str = ""
    secret: str = ""
    """The current webhook secret."""
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
    tokens: dict[str, Token] = field(default_factory=dict)
    debits: dict[str, Debit] = field(default_factory=dict)
    """By the payment's id."""
    qr_codes: dict[str, QrCode] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    """Short code -> id of the payable entity."""
    refund_keys: dict[str, tuple[Json, str]] = field(default_factory=dict)
    """Idempotency key and payment -> request and refund id."""
    events: list[Event] = field(default_factory=list)

    def page(self, target: str) -> str:
        """Creates the short URL of an entity."""
        code = "".join(secrets.choice(BASE62) for _ in range(8))
        self.pages[code] = target
        return f"{self.base_url}/rzp/{code}"


def new_id(prefix: str) -> str:
    """A new id in Razorpay's form; without a prefix for events."""
    tail = "".join(secrets.choice(BASE62) for _ in range(ID_LENGTH))
    return f"{prefix}_{tail}" if prefix else tail


def find(kept: dict[str, Entity], key: str) -> Entity:
    """The entity with this id; raises Refused."""
    if key not in kept:
        raise unknown(key.partition("_")[0])
    return kept[key]
