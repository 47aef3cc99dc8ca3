"""Every table of billing."""

from billing.models.alerts import Alert, AlertDelivery, AlertEndpoint
from billing.models.bills import Bill, Charge, DocumentSeries
from billing.models.catalogue import (
    BillingAccount,
    BillingProfile,
    OperatorProfile,
    Plan,
    RazorpayAccount,
    RazorpayPlan,
)
from billing.models.inbox import BillingFinding, ComparedDay, RazorpayReconciliation, WebhookEvent
from billing.models.ledger import LedgerEntry
from billing.models.mandates import Mandate
from billing.models.money import Dispute, Payment, Refund
from billing.models.subscriptions import BillingPeriod, Subscription
from billing.models.wallets import Coupon, WalletEntry, WalletSettings

__all__ = [
    "Alert",
    "AlertDelivery",
    "AlertEndpoint",
    "Bill",
    "BillingAccount",
    "BillingFinding",
    "BillingPeriod",
    "BillingProfile",
    "Charge",
    "ComparedDay",
    "Coupon",
    "Dispute",
    "DocumentSeries",
    "LedgerEntry",
    "Mandate",
    "OperatorProfile",
    "Payment",
    "Plan",
    "RazorpayAccount",
    "RazorpayPlan",
    "RazorpayReconciliation",
    "Refund",
    "Subscription",
    "WalletEntry",
    "WalletSettings",
    "WebhookEvent",
]
