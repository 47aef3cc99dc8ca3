"""Billing's use cases: plans, profiles, subscriptions, bills, collection, findings, webhook events, alerts.

A tenant's admin reaches its own tenant only; another tenant's id answers like an unknown one. Postgres down:
Unavailable. Redis down: caches of other processes expire by themselves. Razorpay down: intents are stored and the
worker sends them later.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from billing.razorpay.errors import RazorpayError
from core.logs import get_logger

log = get_logger(__name__)


@contextmanager
def razorpay_later(**subject: UUID) -> Iterator[None]:
    """Sends or fetches something that is stored; after Razorpay's error, which is logged, the worker does."""
    try:
        yield
    except RazorpayError as error:
        log.warning("razorpay_later", **{name: str(each) for name, each in subject.items()}, error=str(error))
