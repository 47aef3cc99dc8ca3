"""States and kinds of billing's rows, and the sets of them that queries use. Pure: no SQLAlchemy.

A member's value is its name in lower case. Every CHECK and partial index is written from these (`one_of`).
"""

from collections.abc import Iterable
from enum import StrEnum


def one_of(column: str, values: Iterable[str]) -> str:
    """The SQL condition of a CHECK or a partial index."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


UNANSWERED = ("intended", "submitting")
"""States of a row whose write to Razorpay has no stored answer yet: not sent, or sent (`billing.writes`)."""

PlanState = StrEnum("PlanState", "DRAFT OFFERED WITHDRAWN")
"""`draft`: not for sale yet. `offered`: can be chosen. `withdrawn`: kept by tenants that have it."""

BillKind = StrEnum("BillKind", "BASE OVERAGE CREDIT_NOTE RECEIPT_VOUCHER REFUND_VOUCHER")
"""`base`: a cycle's fee, issued when paid. `overage`: usage past the allowance. `credit_note`: negative amounts.

`receipt_voucher`: a top-up of the wallet, numbered when paid. `refund_voucher`: a top-up given back, negative amounts.
"""
VOUCHERS = (BillKind.RECEIPT_VOUCHER, BillKind.REFUND_VOUCHER)
"""Documents of advances: no sales. What uses an advance up is billed by an invoice of its own."""
BillState = StrEnum("BillState", "HELD OPEN PAID VOID WAIVED ISSUED CREDITED WRITTEN_OFF")
"""`held`: needs an operator. `open`: to be collected. `void`: dropped by an operator, or replaced.

`waived`: less than can be collected, until a later bill does. `issued`: a credit note. `credited`: credited in full.

`written_off`: a debt that an operator gave up.
"""
FINAL = (BillState.OPEN, BillState.PAID, BillState.ISSUED, BillState.CREDITED, BillState.WRITTEN_OFF)
"""States of a numbered document."""
DRAFT = (BillState.HELD, BillState.WAIVED)
"""States of a document without a number; the next pricing of its period replaces it."""

Instrument = StrEnum("Instrument", "PAYMENT_LINK ADDON MANDATE QR_CODE")
"""`mandate`: a debit on the tenant's mandate. `qr_code`: a UPI QR code for one payment."""
ChargeState = StrEnum("ChargeState", "INTENDED SUBMITTING SUBMITTED PAID FAILED VOID")
"""`submitted`: Razorpay has it. `failed`: refused, needs an operator. `void`: read back as expired or deleted."""
LIVE = (ChargeState.INTENDED, ChargeState.SUBMITTING, ChargeState.SUBMITTED)
"""States of a charge that may still collect."""

CAPTURED = frozenset({"captured", "refunded"})
"""Razorpay's states of a payment that brought money, whether or not it was given back."""
RefundState = StrEnum("RefundState", "AWAITING_OPERATOR INTENDED SUBMITTING PENDING PROCESSED FAILED VOID")
"""`awaiting_operator`: above the cap. `pending`: Razorpay has it. `void`: denied by an operator."""
REFUND_ENDED = frozenset({RefundState.PROCESSED, RefundState.FAILED})
"""Razorpay's final states of a refund."""
REFUND_UNSENT = (RefundState.AWAITING_OPERATOR, RefundState.INTENDED, RefundState.SUBMITTING)
"""Refunds that Razorpay's payment doesn't show yet."""

SubscriptionState = StrEnum("SubscriptionState", "INTENDED SUBMITTING SUBMITTED VOID")
"""Our side. `submitted`: Razorpay has it. `void`: never created, and won't be."""
SubscriptionStatus = StrEnum(
    "SubscriptionStatus", "CREATED AUTHENTICATED ACTIVE PENDING HALTED PAUSED CANCELLED COMPLETED EXPIRED"
)
"""Razorpay's side."""
TERMINAL = frozenset({SubscriptionStatus.CANCELLED, SubscriptionStatus.COMPLETED, SubscriptionStatus.EXPIRED})
"""A subscription in one of these charges nothing more."""
AUTHORISED = frozenset(SubscriptionStatus) - {"created", "cancelled", "expired"}
"""Reached only after the customer authorised the subscription."""
CancelState = StrEnum("CancelState", "INTENDED SUBMITTING DONE")
"""The call that cancels a subscription at Razorpay."""

MandateState = StrEnum("MandateState", "INTENDED SUBMITTING SUBMITTED ACTIVE ENDED VOID")
"""`submitted`: waits for the customer's authorisation. `active`: can be debited.

`ended`: opted out, expired or replaced.
"""
MANDATE_OPEN = (MandateState.INTENDED, MandateState.SUBMITTING, MandateState.SUBMITTED)
"""States of a mandate that the customer may still authorise."""

WalletEntryKind = StrEnum("WalletEntryKind", "TOP_UP PROMOTION USAGE EXPIRY REFUND ADJUSTMENT")
"""`top_up`: paid. `promotion`: given, by a coupon or an operator. `usage`: a closed period's. The others take away."""

LedgerEntryKind = StrEnum(
    "LedgerEntryKind",
    "BILL PAYMENT REFUND CREDIT_NOTE WRITE_OFF CARRIED LATE_MONEY DISPUTE TOP_UP WALLET_USAGE WALLET_REFUND OPENING",
)
"""The movement that an entry of the ledger explains. `opening`: balances from before there was a ledger."""

PeriodKind = StrEnum("PeriodKind", "CYCLE TRIAL MONTH")
"""`cycle`: a subscription's. `trial`: before its first cycle. `month`: the operator's, without a subscription."""
PeriodState = StrEnum("PeriodState", "OPEN CLOSED")
RazorpayPlanState = StrEnum("RazorpayPlanState", "INTENDED SUBMITTING CREATED")
EventState = StrEnum("EventState", "RECEIVED APPLIED IGNORED PARKED")
"""Webhooks. `ignored`: not ours, or an unused kind. `parked`: needs an operator."""
AlertState = StrEnum("AlertState", "NONE PENDING DELIVERED FAILED")
"""The delivery of an alert. `none`: the tenant has no endpoint."""
