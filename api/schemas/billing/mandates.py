"""Shapes of mandates."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from api.schemas.fields import Body, example
from api.schemas.moments import Iso, IsoOrNone
from api.schemas.rows import Row
from billing.catalogue.razorpay_plans import MANDATE_PAISE
from billing.models import Mandate
from billing.models.bills import SMALLEST_PAISE
from billing.models.states import MandateState

Phone = Annotated[str, StringConstraints(pattern=r"^\+?[0-9]{8,15}$")]


class NewMandate(Body):
    """The method, and optionally a phone number (the billing profile's unless given) and a smaller maximum per debit.

    `max_paise` is with GST; unless given, it is the most that one bill of your plan can be, Rs 15,000 at most.
    """

    model_config = example(method="upi")

    method: Literal["upi", "card"] = "upi"
    contact: Phone | None = None
    max_paise: Annotated[int, Field(strict=True, ge=SMALLEST_PAISE, le=MANDATE_PAISE)] | None = None


class MandateItem(Row):
    """A mandate: debits up to `max_paise` each, with GST. `pay_url`: Razorpay's page, while it is to be authorised.

    `paused_at`: since when the customer has paused it in its app; `ends_soon`: it is being ended at Razorpay.
    """

    id: UUID
    state: MandateState
    method: str
    max_paise: int
    pay_url: str | None
    ends_soon: bool
    created_at: Iso = Field(validation_alias="created_ms")
    authorised_at: IsoOrNone = Field(validation_alias="authorised_ms")
    expires_at: IsoOrNone = Field(validation_alias="expires_ms")
    paused_at: IsoOrNone = Field(validation_alias="paused_ms")
    ended_at: IsoOrNone = Field(validation_alias="ended_ms")
    end_reason: str | None

    @classmethod
    def of(cls, row: Mandate, *, is_own: bool = False) -> Self:
        """The shape of a row. Only its tenant is shown where to authorise it."""
        waits = row.state == MandateState.SUBMITTED and row.wanted_end is None
        pay_url = row.short_url if is_own and waits else None
        return cls.completed(row, pay_url=pay_url, ends_soon=row.wanted_end is not None)


class TenantMandate(MandateItem):
    """A mandate in the operator's list. `pay_url` is null here: only the tenant sees it."""

    tenant_id: UUID
    razorpay_id: str | None
    token_id: str | None
    error: str | None


class MandateView(BaseModel):
    """`active`: the mandate that bills are debited on; `waiting`: the one to authorise. Either may be null.

    `allowed_paise`: the most that a new mandate can allow per debit, with GST; 0 if your plan bills no usage, null
    before there is a billing profile.
    """

    active: MandateItem | None
    waiting: MandateItem | None
    allowed_paise: int | None
