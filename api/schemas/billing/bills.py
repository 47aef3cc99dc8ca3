"""Shapes of bills, credit notes and drafts. Amounts in paise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import AliasPath, BaseModel, Field

from api.schemas.billing.decisions import Decision
from api.schemas.fields import example
from api.schemas.moments import Iso, IsoOrNone
from api.schemas.rows import Row
from billing.gst.rupees import rupees
from billing.invoicing.preview import UpcomingCharges
from billing.models import Bill, Charge, Payment
from billing.models.bills import due_of
from billing.models.states import BillState, Instrument


class BillItem(Row):
    """A document. `due_paise` is due by `due_at`, at `pay_url`. `collected_by`: how it is being collected.

    `carried_paise`: if positive, less than a rupee that a later bill collects; if negative, what this one collects of
    earlier ones.

    `number` is null while it is held, waived or void. Amounts of a credit note and of a refund voucher are negative;
    it `refers_to` a bill or a receipt voucher.
    """

    id: UUID
    tenant_id: UUID
    kind: Literal["base", "overage", "credit_note", "receipt_voucher", "refund_voucher"]
    state: BillState
    number: str | None
    period: str = Field(validation_alias="period_id")
    starts_at: Iso = Field(validation_alias="starts_ms")
    ends_at: Iso = Field(validation_alias="ends_ms")
    plan: str = Field(validation_alias="plan_code")
    plan_version: int
    taxable_paise: int
    total_paise: int
    credited_paise: int
    paid_paise: int
    carried_paise: int
    due_paise: int
    total: str
    refers_to: UUID | None
    reason: str | None
    issued_at: IsoOrNone = Field(validation_alias="issued_ms")
    due_at: IsoOrNone = Field(validation_alias="due_ms")
    paid_at: IsoOrNone = Field(validation_alias="paid_ms")
    pay_url: str | None
    collected_by: Instrument | None

    @classmethod
    def of(cls, bill: Bill, charge: Charge | None = None) -> Self:
        """The shape of a row; `charge` is its live one, if any."""
        due_paise = due_of(bill)
        pay_url = None if charge is None or due_paise <= 0 else charge.short_url
        collected_by = None if charge is None or due_paise <= 0 else charge.instrument
        more = {"due_paise": due_paise, "pay_url": pay_url, "collected_by": collected_by}
        return cls.completed(bill, total=rupees(bill.total_paise), **more)


class BillDetail(BillItem):
    """A document with its lines, tax and parties."""

    lines: list[dict[str, Any]]
    tax: list[dict[str, Any]]
    customer: dict[str, Any]
    supplier: dict[str, Any]


class BillVoid(Decision):
    """The reason to void a held bill. With `again` its period is priced again at once, instead of waived."""

    model_config = example(reason="agreed with the customer", again=False)

    again: bool = False


class Closed(BaseModel):
    """The number of periods that were closed, or closed again."""

    closed: int


class UpcomingItem(Row):
    """The cost of the current period's overage, were it closed now. Not a demand.

    `is_taxed` is false without a billing profile; a negative amount would be a credit note.
    """

    period: str = Field(validation_alias=AliasPath("period", "period_id"))
    kind: str = Field(validation_alias=AliasPath("period", "kind"))
    starts_at: Iso = Field(validation_alias=AliasPath("period", "starts_ms"))
    ends_at: Iso = Field(validation_alias=AliasPath("period", "ends_ms"))
    plan: str = Field(validation_alias=AliasPath("period", "plan_code"))
    plan_version: int = Field(validation_alias=AliasPath("period", "plan_version"))
    lines: list[dict[str, Any]]
    taxable_paise: int
    tax: list[dict[str, Any]]
    total_paise: int
    total: str
    is_taxed: bool

    @classmethod
    def of(cls, found: UpcomingCharges) -> Self:
        """The shape of a preview."""
        return cls.completed(found, total=rupees(found.total_paise))


@dataclass(frozen=True, slots=True)
class BillFile:
    """A document as a file, with the headers that go with it."""

    content: str | bytes
    media_type: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class BillHistory:
    """A bill with the payments and credit notes applied to it, and for a credit note the bill it refers to."""

    bill: BillDetail
    payments: Sequence[Payment]
    credit_notes: list[BillItem]
    refers_to: BillItem | None


class BillPayment(Row):
    """A payment applied to a bill."""

    applied_paise: int
    method: str | None
    captured_at: IsoOrNone = Field(validation_alias="captured_ms")


class BillExplanation(BaseModel):
    """A bill in sentences, with the figures that they are made of; without the parties' names and addresses."""

    sentences: list[str]
    bill: BillItem
    lines: list[dict[str, Any]]
    tax: list[dict[str, Any]]
    payments: list[BillPayment]
    credit_notes: list[BillItem]
    refers_to: BillItem | None

    @classmethod
    def of(cls, history: BillHistory, sentences: list[str]) -> Self:
        """The shape of a bill's history."""
        bill = history.bill
        return cls(
            sentences=sentences,
            bill=BillItem.model_construct(**{name: getattr(bill, name) for name in BillItem.model_fields}),
            lines=bill.lines,
            tax=bill.tax,
            payments=[BillPayment.of(each) for each in history.payments],
            credit_notes=history.credit_notes,
            refers_to=history.refers_to,
        )
