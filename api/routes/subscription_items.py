"""A subscription as it is answered, to its tenant and to the operator."""

from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel

from api.routes.bill_items import iso
from billing.models import Subscription
from billing.subscriptions.intents import in_last_cycle


class SubscriptionItem(BaseModel):
    """`state`: of our wish; `status`: Razorpay's word. `pay_url`: Razorpay's page, while it is to be authorised.

    `checkout`: the options for Razorpay's Checkout in your own page, in place of `pay_url`.
    """

    id: UUID
    plan: str
    version: int
    state: str
    status: str | None
    amount_paise: int
    replaces: UUID | None
    starts_at: str | None
    current_start: str | None
    current_end: str | None
    paid_through: str | None
    ends_at: str | None
    renewal_due: bool
    payment_method: str | None
    pay_url: str | None
    checkout: dict[str, Any] | None
    error: str | None

    @classmethod
    def of(cls, row: Subscription, key_id: str) -> Self:
        """As it is answered."""
        waits = row.is_open and row.razorpay_id is not None
        return cls(
            id=row.id,
            plan=row.plan_code,
            version=row.plan_version,
            state=row.state,
            status=row.status,
            amount_paise=row.gross_paise,
            replaces=row.replaces,
            starts_at=iso(row.start_ms or row.wanted_start_ms),
            current_start=iso(row.current_start_ms),
            current_end=iso(row.current_end_ms),
            paid_through=iso(row.paid_through_ms),
            ends_at=iso(row.cancel_at_ms),
            renewal_due=in_last_cycle(row),
            payment_method=row.payment_method,
            pay_url=row.short_url if waits else None,
            checkout={"key": key_id, "subscription_id": row.razorpay_id} if waits else None,
            error=row.error,
        )
