"""Shapes of charges, refunds and findings about money."""

from typing import Any
from uuid import UUID

from pydantic import Field

from api.schemas.billing.decisions import Reason
from api.schemas.fields import Body, Text, example
from api.schemas.moments import Iso, IsoOrNone
from api.schemas.rows import Row
from billing.models.states import ChargeState, Instrument, RefundState


class ChargeItem(Row):
    """An attempt to collect a bill. `wanted_void`: why it is to be cancelled at Razorpay; `error`: why it ended."""

    id: UUID
    tenant_id: UUID
    bill_id: UUID
    attempt: int
    instrument: Instrument
    state: ChargeState
    amount_paise: int
    reference: str
    razorpay_id: str | None
    razorpay_invoice_id: str | None
    wanted_void: str | None
    error: str | None
    created_at: Iso = Field(validation_alias="created_ms")
    checked_at: IsoOrNone = Field(validation_alias="checked_ms")
    ended_at: IsoOrNone = Field(validation_alias="ended_ms")


class RefundItem(Row):
    """A refund.

    `cause`: `excess:<payment>`, `credit:...`, `extra:...`, `mandate:...`, `wallet:...`, `razorpay:...` (by hand).

    A cause that ends with `:again:<refund>` names the failed one that it replaces.
    """

    id: UUID
    tenant_id: UUID
    payment_id: str
    amount_paise: int
    cause: str
    state: RefundState
    razorpay_id: str | None
    error: str | None
    created_at: Iso = Field(validation_alias="created_ms")


class FindingItem(Row):
    """A fact about money that a person should review. `key` names it."""

    key: str
    tenant_id: UUID | None
    kind: str
    detail: dict[str, Any]
    seen_at: Iso = Field(validation_alias="seen_ms")
    closed_at: IsoOrNone = Field(validation_alias="closed_ms")


class FindingClose(Body):
    """A reviewed finding, and the outcome."""

    model_config = example(key="dispute:disp_AbCdEf12345678", reason="answered in the dashboard")

    key: Text
    reason: Reason
