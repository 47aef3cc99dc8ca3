"""Debits by a token, in the coupled flow: notice at once, the first try 25 h later, three retries for UPI.

The payment is `created` until a try succeeds, or the last one fails. An order with `notification{}` is debited once,
when its time has come, and never retried. Assumptions: a reason that needs another mandate is not retried, nor is what
the limits refuse; an opt-out of one debit fails it at once as `payment_declined`; a second debit of an order that was
paid meanwhile fails. A debit that fails as `late` is captured after `late_s`, though `payment.failed` was sent.
"""

from typing import Any

from sandbox.razorpay import authorisation, events, payments
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.calendar import in_india
from sandbox.razorpay.entities import METHODS, Json, Order, Payment
from sandbox.razorpay.instruments import tokens
from sandbox.razorpay.instruments.entities import Debit, Token
from sandbox.razorpay.payments import OK
from sandbox.razorpay.refusals import Refused, flag, integer, notes, required

_FIELDS = ("email", "contact", "amount", "currency", "order_id", "customer_id", "token")
LATE = "late"
_FINAL = {
    "debit_declined", "mandate_cancelled", "mandate_expired", "mandate_not_active", "invalid_token", "payment_declined",
    "bank_account_invalid", "payer_account_has_changed", "mandate_current_cycle_allowed_debit_exceeds",
    "mandate_debit_beyond_psp_amount_cap", "transaction_limit_exceeded", "pre_debit_notification_failed",
    "order_already_paid",
}  # fmt: skip


def create(books: Books, body: Json, now: int) -> Json:
    """`POST /v1/payments/create/recurring`: sends the notice; raises Refused. Repeated, it debits twice."""
    for name in _FIELDS:
        required(body, name)
    if not flag(body, "recurring"):
        raise Refused("The recurring field is required.", field="recurring")
    order = find(books.orders, str(body["order_id"]))
    token = tokens.owned(books, str(body["customer_id"]), str(body["token"]))
    _check(order, token, integer(body, "amount"))
    method = next(each for each in METHODS if each == token.by)
    payment = payments.new_payment(
        books, now, order, method, paise=order.amount, kind="recurring", description=str(body.get("description") or "")
    )
    payment.email, payment.contact = str(body["email"]), str(body["contact"])
    payment.customer_id, payment.token_id, payment.card_id = token.customer_id, token.id, token.card_id
    payment.notes = notes(body) or dict(order.notes)
    books.debits[payment.id] = _notified(books, order, token, payment, now)
    return {
        "razorpay_payment_id": payment.id,
        "razorpay_order_id": order.id,
        "razorpay_signature": authorisation.signed(books.key_secret, order.id, payment.id),
    }


def _check(order: Order, token: Token, paise: int) -> None:
    """Refuses what Razorpay refuses before the notice. Assumption: the words for a token that is not confirmed."""
    if order.status == "paid":
        raise Refused("Order already paid")
    if order.mandate is not None:
        raise Refused("The order registers a mandate and cannot be debited.")
    if paise != order.amount:
        raise Refused("Your payment amount is different from your order amount.", field="amount")
    if token.status != "confirmed":
        raise Refused("Invalid Token.", reason="invalid_token", field="token")
    if paise > token.terms.max_amount:
        raise Refused(
            "Amount exceeds maximum amount allowed",
            source="business",
            step="payment_initiation",
            reason="input_validation_failed",
            metadata={},
        )


def _notified(books: Books, order: Order, token: Token, payment: Payment, now: int) -> Debit:
    """The notice, and when the first try follows it."""
    method, apart = token.terms.method, order.notification
    at = now + books.settings.notice_s.get(method, 0)
    return Debit(
        payment_id=payment.id,
        token_id=token.id,
        amount=payment.amount,
        notice_id=apart["id"] if apart else new_id("notification"),
        notified_at=now,
        due_at=max(now, int(apart["payment_after"])) if apart else at,
        retries=0 if apart else books.settings.debit_retries.get(method, 0),
    )


def next_at(debit: Debit) -> int | None:
    """The time of its next step."""
    return debit.due_at if debit.due_at is not None else debit.late_at


def step(books: Books, debit: Debit, now: int) -> None:
    """A try that is due, or the late authorisation of a failed payment."""
    payment = books.payments[debit.payment_id]
    if debit.due_at is None:
        debit.late_at = None
        capture(books, payment, now)
        return
    debit.tries += 1
    reason = _outcome(books, debit, payment, now)
    if reason == OK:
        debit.due_at = None
        capture(books, payment, now)
    elif reason in _FINAL or reason == LATE or debit.tries > debit.retries:
        debit.due_at = None
        debit.late_at = now + books.settings.late_s if reason == LATE else None
        payments.fail(books, payment, "payment_timed_out" if reason == LATE else reason, now)
    else:
        debit.due_at = now + books.settings.retry_s


def _outcome(books: Books, debit: Debit, payment: Payment, now: int) -> str:
    """The outcome of a try: what forbids it, then what was ordered."""
    token, order = books.tokens[debit.token_id], books.orders[payment.order_id or ""]
    if token.status != "confirmed":
        return f"mandate_{token.status}"
    if now >= token.terms.expire_at:
        return "mandate_expired"
    if order.status == "paid":
        return "order_already_paid"
    if reason := payments.beyond_cap(books, token.by, debit.amount):
        return reason
    if token.terms.frequency == "monthly" and _debited_this_month(books, token, now):
        return "mandate_current_cycle_allowed_debit_exceeds"
    return token.outcomes.pop(0) if token.outcomes else OK


def _debited_this_month(books: Books, token: Token, now: int) -> bool:
    month = in_india(now).strftime("%Y-%m")
    paid = [books.payments[key] for key, each in books.debits.items() if each.token_id == token.id]
    return any(
        each.status in ("captured", "refunded")
        and in_india(books.debits[each.id].notified_at).strftime("%Y-%m") == month
        for each in paid
    )


def capture(books: Books, payment: Payment, now: int) -> None:
    """The money of a debit, in time or late."""
    for name in ("error_code", "error_description", "error_source", "error_step", "error_reason"):
        setattr(payment, name, None)
    payments.capture(books, payment, now)
    events.order_paid(books, now, books.orders[payment.order_id or ""], payment)
    books.tokens[payment.token_id or ""].used_at = now


def opt_out(books: Books, payment_id: str, now: int) -> Payment:
    """The customer declines this one debit after its notice; the mandate goes on."""
    debit, payment = find(books.debits, payment_id), find(books.payments, payment_id)
    if debit.due_at is None:
        raise Refused(f"The payment is {payment.status} already.")
    debit.due_at, debit.opted_out_at = None, now
    payments.fail(books, payment, "payment_declined", now)
    return payment


def authorise_late(books: Books, payment_id: str, now: int) -> Payment:
    """The bank answers after all: a failed debit is captured."""
    debit, payment = find(books.debits, payment_id), find(books.payments, payment_id)
    if payment.status != "failed":
        raise Refused(f"The payment is {payment.status}, not failed.")
    debit.late_at = None
    capture(books, payment, now)
    return payment


def shown(books: Books, debit: Debit) -> dict[str, Any]:
    """A debit for the test's ledger."""
    payment = books.payments[debit.payment_id]
    return {
        "payment_id": debit.payment_id, "token_id": debit.token_id, "order_id": payment.order_id,
        "amount": debit.amount, "status": payment.status, "notice_id": debit.notice_id,
        "notified_at": debit.notified_at, "due_at": debit.due_at, "tries": debit.tries,
        "opted_out_at": debit.opted_out_at, "late_at": debit.late_at,
    }  # fmt: skip
