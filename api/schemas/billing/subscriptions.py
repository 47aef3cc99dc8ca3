"""Shapes of subscriptions."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from api.schemas.fields import Body, PlanNumber, Slug, example
from api.schemas.moments import IsoOrNone
from api.schemas.rows import Row
from billing.models import Subscription
from billing.subscriptions.intents import in_last_cycle

RazorpayId = Annotated[str, StringConstraints(pattern=r"^[a-z]+_[A-Za-z0-9]{1,40}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class NewSubscription(Body):
    """The plan to subscribe or change to; the version on offer unless one is named."""

    model_config = example(plan="team")

    plan: Slug
    version: PlanNumber | None = None


class Ending(Body):
    """Either way no further charge is made and the paid time is served; `now` cannot be undone."""

    model_config = example(when="period_end")

    when: Literal["now", "period_end"] = "period_end"


class CheckoutAnswer(Body):
    """The arguments of Checkout's handler."""

    model_config = example(
        razorpay_payment_id="pay_TmA4kQ8sLw2ZxR",
        razorpay_subscription_id="sub_TmA1c9RkVe7HbN",
        razorpay_signature="1003f16477202eec3051113f62bfcc303de8199898434e2645001b60ef2b60ac",
    )

    razorpay_payment_id: RazorpayId
    razorpay_subscription_id: RazorpayId
    razorpay_signature: Signature


class SubscriptionItem(Row):
    """`state`: of our intent; `status`: Razorpay's own. `pay_url`: Razorpay's page, while it is to be authorised.

    `checkout`: the options for Razorpay's Checkout in your own page, instead of `pay_url`.
    """

    id: UUID
    plan: str = Field(validation_alias="plan_code")
    version: int = Field(validation_alias="plan_version")
    state: str
    status: str | None
    amount_paise: int = Field(validation_alias="gross_paise")
    replaces: UUID | None
    starts_at: IsoOrNone
    current_start: IsoOrNone = Field(validation_alias="current_start_ms")
    current_end: IsoOrNone = Field(validation_alias="current_end_ms")
    paid_through: IsoOrNone = Field(validation_alias="paid_through_ms")
    ends_at: IsoOrNone = Field(validation_alias="cancel_at_ms")
    renewal_due: bool
    payment_method: str | None
    pay_url: str | None
    checkout: dict[str, Any] | None
    error: str | None

    @classmethod
    def of(cls, row: Subscription, key_id: str | None = None) -> Self:
        """The shape of a row. Without Razorpay's `key_id` it can't be paid: only its tenant is shown how."""
        waits = row.is_open and row.razorpay_id is not None and key_id is not None
        return cls.completed(
            row,
            starts_at=row.start_ms or row.wanted_start_ms,
            renewal_due=in_last_cycle(row),
            pay_url=row.short_url if waits else None,
            checkout={"key": key_id, "subscription_id": row.razorpay_id} if waits else None,
        )


class TenantSubscription(SubscriptionItem):
    """A subscription in the operator's list. `pay_url` is null here: only the tenant sees it."""

    tenant_id: UUID
    razorpay_id: str | None


class SubscriptionView(BaseModel):
    """`current`: the live subscription; `waiting`: the one to authorise. Either may be null."""

    current: SubscriptionItem | None
    waiting: SubscriptionItem | None
