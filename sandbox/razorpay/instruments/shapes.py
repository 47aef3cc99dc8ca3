"""Tokens and mandates as JSON, as in Razorpay's samples: a token names neither its customer nor its registration."""

from typing import Any

from sandbox.razorpay.instruments.entities import QrCode, Terms, Token

Json = dict[str, Any]


def token(kept: Token) -> Json:
    """A token. `recurring_details.status` tells whether it can be debited."""
    shown: Json = {
        "id": kept.id, "entity": "token", "token": kept.token, "bank": "HDFC" if kept.by == "emandate" else None,
        "wallet": None, "method": kept.terms.method, "recurring": kept.status != "rejected",
        "recurring_details": {"status": kept.status, "failure_reason": kept.failure_reason}, "auth_type": None,
        "mrn": None, "used_at": kept.used_at, "created_at": kept.created_at, "start_time": kept.created_at,
        "dcc_enabled": False, "max_amount": kept.terms.max_amount, "expired_at": kept.terms.expire_at,
    }  # fmt: skip
    if kept.by == "upi":
        shown["vpa"] = {"username": "payer", "handle": "exampleupi", "name": None}
    if kept.terms.method == "card":
        shown["card"] = {
            "entity": "card", "name": "", "last4": "4366", "network": "Visa", "type": "credit", "issuer": "HDFC",
            "international": kept.by == "card_international", "emi": False, "sub_type": "consumer",
        }  # fmt: skip
    return shown


def terms(kept: Terms) -> Json:
    """The mandate that an order registers."""
    return {
        "method": kept.method, "notes": [], "recurring_status": None, "failure_reason": None, "currency": "INR",
        "max_amount": kept.max_amount, "auth_type": None, "expire_at": kept.expire_at, "frequency": kept.frequency,
        "first_payment_amount": 0,
    }  # fmt: skip


def qr_code(kept: QrCode) -> Json:
    """A QR code; its closing is shown once it is closed."""
    shown: Json = {
        "id": kept.id, "entity": "qr_code", "created_at": kept.created_at, "name": kept.name, "usage": kept.usage,
        "type": kept.type, "image_url": kept.image_url, "image_content": kept.image_content,
        "payment_amount": kept.payment_amount, "status": kept.status, "description": kept.description,
        "fixed_amount": kept.fixed_amount, "payments_amount_received": kept.payments_amount_received,
        "payments_count_received": kept.payments_count_received, "notes": kept.notes or [],
        "customer_id": kept.customer_id, "close_by": kept.close_by,
    }  # fmt: skip
    if kept.status == "closed":
        shown |= {"closed_at": kept.closed_at, "close_reason": kept.close_reason}
    return shown
