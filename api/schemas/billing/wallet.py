"""Shapes of wallets, their entries, settings and coupons. Amounts in paise, before tax unless they say otherwise."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from api.schemas.billing.decisions import Reason
from api.schemas.fields import Body, Text, example
from api.schemas.moments import Iso, IsoOrNone, Moment
from api.schemas.rows import Row
from billing.models.states import Instrument
from billing.prepaid.top_ups import MAX_PAISE, MIN_PAISE

MAX_DAYS = 3_650
MAX_USES = 1_000_000
TopUpPaise = Annotated[int, Field(strict=True, ge=MIN_PAISE, le=MAX_PAISE)]
CreditPaise = Annotated[int, Field(strict=True, ge=1, le=MAX_PAISE)]
BoundPaise = Annotated[int, Field(strict=True, ge=0, le=MAX_PAISE)]
Days = Annotated[int, Field(strict=True, ge=1, le=MAX_DAYS)]
CouponCode = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{2,39}$")]


class WalletLot(Row):
    """A top-up or promotional credit that is not used up. What expires first is used first."""

    kind: Literal["money", "promotion"]
    paise: int
    left_paise: int
    expires_at: IsoOrNone = Field(validation_alias="expires_ms")


class TopUpItem(Row):
    """A top-up; `total_paise` is with GST. An open one without `pay_url` waits for Razorpay's answer.

    `collected_by`: a payment link at `pay_url`, or a UPI QR code, whose image is there. `upi_link` is the link in that
    code, if Razorpay shows it: draw it as a code, or open it in a UPI app. Both end at `expires_at`.
    """

    id: UUID
    paise: int = Field(validation_alias="taxable_paise")
    total_paise: int
    state: Literal["open", "paid", "void"]
    is_automatic: bool
    collected_by: Instrument | None
    pay_url: str | None
    upi_link: str | None
    expires_at: IsoOrNone = Field(validation_alias="expire_by_ms")
    created_at: Iso = Field(validation_alias="created_ms")


class WalletSettingsItem(Row):
    """The bound of the low-balance alert, and of automatic top-ups by the mandate."""

    low_paise: int | None
    top_up_below_paise: int | None
    top_up_paise: int | None


class WalletView(BaseModel):
    """A wallet. `unused_paise` is what may still be spent; the usage of running periods is in `balance_paise` yet.

    `is_prepaid`: whether the plan in force draws from it.
    """

    tenant_id: UUID
    is_prepaid: bool
    balance_paise: int
    unused_paise: int
    lots: list[WalletLot]
    open_top_ups: list[TopUpItem]
    settings: WalletSettingsItem


class WalletEntryItem(Row):
    """A movement of a wallet; positive amounts were added, or given back."""

    id: UUID
    tenant_id: UUID
    kind: str
    paise: int
    bill_id: UUID | None
    period: str | None = Field(validation_alias="period_id")
    expires_at: IsoOrNone = Field(validation_alias="expires_ms")
    reason: str
    created_at: Iso = Field(validation_alias="created_ms")


class NewTopUp(Body):
    """The amount before GST. `instrument`: pay at a payment link, or by scanning a UPI QR code within two hours.

    Where Razorpay gives the operator no QR codes, it is a payment link all the same.
    """

    model_config = example(paise=100_000, instrument="qr_code")

    paise: TopUpPaise
    instrument: Literal["payment_link", "qr_code"] = "payment_link"


class WalletRules(Body):
    """Each may be null. `low_paise`: an alert is sent below this balance.

    Below `top_up_below_paise`, `top_up_paise` are added through the mandate; a debit takes a day or two.
    """

    model_config = example(low_paise=20_000, top_up_below_paise=50_000, top_up_paise=200_000)

    low_paise: BoundPaise | None = None
    top_up_below_paise: BoundPaise | None = None
    top_up_paise: TopUpPaise | None = None


class Redemption(Body):
    """The code of a coupon."""

    model_config = example(code="WELCOME-500")

    code: CouponCode


class NewWalletCredit(Body):
    """Promotional credit. The tenant sees `reason`. `reference`: once per tenant, so that the call may be repeated."""

    model_config = example(paise=50_000, reason="an outage on 3 November", days=90, reference="ticket-4711")

    paise: CreditPaise
    reason: Reason
    days: Days | None = None
    reference: Text | None = None


class WalletRefund(Body):
    """Unused money to give back with its GST: all of it, unless `paise` says how much before GST."""

    model_config = example(reason="the customer leaves", paise=50_000)

    reason: Reason
    paise: CreditPaise | None = None


class NewCoupon(Body):
    """A coupon. Its credit expires `credit_days` after its use; `expires_at`: it can be used until then."""

    model_config = example(
        code="WELCOME-500", paise=50_000, credit_days=90, expires_at="2027-01-01T00:00:00Z", max_uses=100
    )

    code: CouponCode
    paise: CreditPaise
    credit_days: Days | None = None
    expires_at: Moment | None = None
    max_uses: Annotated[int, Field(strict=True, ge=1, le=MAX_USES)] | None = None


class CouponItem(Row):
    """A coupon, and how often it was used."""

    code: str
    paise: int
    credit_days: int | None
    expires_at: IsoOrNone = Field(validation_alias="expires_ms")
    max_uses: int | None
    uses: int
    created_at: Iso = Field(validation_alias="created_ms")
