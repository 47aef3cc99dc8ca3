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
from billing.models.inbox import BillingFinding, RazorpayReconciliation, WebhookEvent
from billing.models.money import Dispute, Payment, Refund
from billing.models.subscriptions import BillingPeriod, Subscription

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
