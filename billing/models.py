"""Every table of billing, for those who read or write them."""

from billing.tables.alerts import Alert, AlertDelivery, AlertEndpoint
from billing.tables.bills import Bill, Charge, DocumentSeries
from billing.tables.catalogue import (
    BillingAccount,
    BillingProfile,
    OperatorProfile,
    Plan,
    RazorpayAccount,
    RazorpayPlan,
)
from billing.tables.inbox import BillingFinding, RazorpayReconciliation, WebhookEvent
from billing.tables.money import Dispute, Payment, Refund
from billing.tables.subscriptions import BillingPeriod, Subscription

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
    "Dispute",
    "DocumentSeries",
    "OperatorProfile",
    "Payment",
    "Plan",
    "RazorpayAccount",
    "RazorpayPlan",
    "RazorpayReconciliation",
    "Refund",
    "Subscription",
    "WebhookEvent",
]
