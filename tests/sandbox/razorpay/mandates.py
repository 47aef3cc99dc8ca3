"""A mandate and its debits, through the SDK."""

import secrets
from typing import Any

from tests.sandbox.razorpay.bench import Bench, Json

MAX = 1_500_000
NOTICE_S, RETRY_S = 25 * 3600, 3 * 3600


def registration(bench: Bench, *, method: str = "upi", most: int = MAX, frequency: str = "as_presented") -> Json:
    """A registration link, issued."""
    tag = secrets.token_hex(4)
    made: Json = bench.sdk.registration_link.create(
        {
            "customer": {"name": "Nimbus Tools", "email": f"{tag}@nimbus.example", "contact": "+919812345670"},
            "type": "link",
            "amount": 100,
            "currency": "INR",
            "description": "Usage above the plan",
            "subscription_registration": {"method": method, "max_amount": most, "frequency": frequency},
            "receipt": f"mandate_{tag}",
            "expire_by": bench.now() + 7 * 86_400,
            "notes": {"naka_tenant": tag},
        }
    )
    return made


def mandate(bench: Bench, *, method: str = "upi", by: str | None = None, **more: Any) -> Json:
    """An authorised registration; answers its payment with `token`."""
    made = registration(bench, method=method, **more)
    paid: Json = bench.sim("POST", f"/registrations/{made['id']}/authorise", method=by or method)
    return paid


def debit(bench: Bench, paid: Json, amount: int = 118_000, **order: Any) -> str:
    """An order and its recurring payment; returns the payment's id."""
    reference = f"bill_{secrets.token_hex(4)}"
    made = bench.sdk.order.create(
        {"amount": amount, "currency": "INR", "receipt": reference, "unique_receipt": True, **order}
    )
    answer = bench.sdk.payment.createRecurring(body(paid, made))
    key: str = answer["razorpay_payment_id"]
    return key


def body(paid: Json, order: Json) -> Json:
    """The body of a recurring payment."""
    return {
        "email": "billing@nimbus.example",
        "contact": "+919812345670",
        "amount": order["amount"],
        "currency": "INR",
        "order_id": order["id"],
        "customer_id": paid["customer_id"],
        "token": paid["token_id"],
        "recurring": True,
        "description": "Usage of November",
        "notes": {"bill": order["receipt"] or ""},
    }
