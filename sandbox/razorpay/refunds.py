"""Refunds by the API, in the dashboard, or by Razorpay itself; and disputes.

A payment's refunds never exceed its amount, not counting failed ones, and one idempotency key makes one refund.
"""

import re
from typing import Any, Literal

from sandbox.razorpay import events
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.calendar import DAY_S
from sandbox.razorpay.entities import Dispute, Payment, Refund
from sandbox.razorpay.refusals import Refused, amount, notes

Json = dict[str, Any]

_KEY = re.compile(r"[A-Za-z0-9_-]{10,}")
_OLDEST_S = 183 * DAY_S
_RESPOND_S = 7 * DAY_S


def create(books: Books, payment_id: str, body: Json, key: str | None, now: int) -> Refund:
    """`POST /v1/payments/:id/refund`, with an optional idempotency key; raises Refused."""
    payment = find(books.payments, payment_id)
    if key is None:
        return give_back(books, payment, body, now)
    if not _KEY.fullmatch(key):
        raise Refused("The idempotency key must be at least 10 characters: letters, digits, - and _")
    known = books.refund_keys.get(key)
    wanted = {**body, "payment": payment_id}
    if known is not None:
        if known[0] != wanted:
            text = "Different request with the same idempotency key has already been processed."
            raise Refused(text, status=409)
        return books.refunds[known[1]]
    made = give_back(books, payment, body, now)
    books.refund_keys[key] = (wanted, made.id)
    return made


def give_back(
    books: Books, payment: Payment, body: Json, now: int, by: Literal["api", "dashboard", "razorpay"] = "api"
) -> Refund:
    """Refunds the given amount, or the rest."""
    if payment.status == "refunded":
        raise Refused("The payment has been fully refunded already.")
    if payment.status != "captured":
        raise Refused("The payment status should be captured for action to be taken")
    if now - payment.created_at > _OLDEST_S:
        raise Refused("Payments older than 6 months cannot be refunded")
    left = payment.amount - payment.amount_refunded
    paise = amount(body) if body.get("amount") is not None else left
    if paise > left:
        raise Refused("The refund amount provided is greater than amount captured.", field="amount")
    made = Refund(
        id=new_id("rfnd"),
        amount=paise,
        currency=payment.currency,
        payment_id=payment.id,
        notes=notes(body),
        receipt=body.get("receipt"),
        created_at=now,
        status="pending",
        speed_requested=body.get("speed") or "normal",
        by=by,
    )
    books.refunds[made.id] = made
    _count(payment, paise)
    events.refund(books, now, "created", made, payment)
    _finish(books, made, payment, now)
    return made


def _finish(books: Books, refund: Refund, payment: Payment, now: int) -> None:
    """Ends a refund. The amount of a failed one stays."""
    if books.settings.refund_fails > 0:
        books.settings.refund_fails -= 1
        refund.status = "failed"
        _count(payment, -refund.amount)
        events.refund(books, now, "failed", refund, payment)
        return
    refund.status = "processed"
    events.refund(books, now, "processed", refund, payment)


def _count(payment: Payment, paise: int) -> None:
    payment.amount_refunded += paise
    payment.status = "refunded" if payment.amount_refunded >= payment.amount else "captured"
    payment.refund_status = None if payment.amount_refunded == 0 else "partial"
    if payment.status == "refunded":
        payment.refund_status = "full"


def open_dispute(books: Books, payment_id: str, body: Json, now: int) -> Dispute:
    """Opens a dispute."""
    payment = find(books.payments, payment_id)
    made = Dispute(
        id=new_id("disp"),
        payment_id=payment.id,
        amount=int(body.get("amount") or payment.amount),
        currency=payment.currency,
        reason_code=str(body.get("reason_code") or "chargeback_authorization"),
        respond_by=now + _RESPOND_S,
        created_at=now,
    )
    books.disputes[made.id] = made
    events.dispute(books, now, "created", made, payment)
    return made


def close_dispute(books: Books, dispute_id: str, status: str, now: int) -> Dispute:
    """Ends a dispute as `won`, `lost` or `closed`."""
    if status not in ("won", "lost", "closed"):
        raise Refused("status: won, lost or closed", field="status")
    kept = find(books.disputes, dispute_id)
    kept.status = status
    events.dispute(books, now, status, kept, books.payments[kept.payment_id])
    return kept
