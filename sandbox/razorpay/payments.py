"""Orders and their payments."""

from typing import Any

from sandbox.razorpay import events
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.entities import METHODS, Method, Order, Payment, PaymentKind, Subscription
from sandbox.razorpay.refusals import Refused, amount, flag, notes, required

OK = "ok"
_FEE_PERCENT = 2
_GST_PERCENT = 18
_MAX_RECEIPT = 40
_VPA = "payer@exampleupi"
_SAID = {
    "insufficient_funds": "Transaction failed due to insufficient funds.",
    "transaction_limit_exceeded": "Payment was unsuccessful as it exceeds the transaction limit.",
    "mandate_debit_beyond_psp_amount_cap": "The debit is beyond the amount cap of the payer's app.",
}
_BEYOND_CAP = {"upi": "mandate_debit_beyond_psp_amount_cap"}


def method_of(value: Any) -> Method:
    """A valid payment method; raises Refused."""
    for known in METHODS:
        if value == known:
            return known
    raise Refused(f"method: one of {', '.join(METHODS)}", field="method")


def beyond_cap(books: Books, method: str, paise: int) -> str | None:
    """The reason for which a debit fails that is above the cap of its method; None up to the cap."""
    if paise > books.settings.cap_paise.get(method, paise):
        return _BEYOND_CAP.get(method, "transaction_limit_exceeded")
    return None


def rupees(paise: int) -> str:
    """An amount in rupees with two decimals."""
    return f"{paise // 100}.{paise % 100:02d}"


def create_order(books: Books, body: dict[str, Any], now: int) -> Order:
    """Creates an order, or with `unique_receipt` returns the one with this receipt."""
    paise = amount(body, text="Order amount less than minimum amount allowed")
    currency = str(required(body, "currency"))
    receipt = body.get("receipt")
    if receipt is not None and len(str(receipt)) > _MAX_RECEIPT:
        raise Refused("The receipt may not be greater than 40 characters.", field="receipt")
    if receipt and flag(body, "unique_receipt"):
        for known in books.orders.values():
            if known.receipt == receipt:
                return known
    return new_order(books, now, paise, currency, receipt=receipt, marks=notes(body))


def new_order(
    books: Books,
    now: int,
    paise: int,
    currency: str,
    *,
    receipt: str | None = None,
    marks: dict[str, str] | None = None,
) -> Order:
    """Creates an order for an amount."""
    made = Order(
        id=new_id("order"), amount=paise, currency=currency, receipt=receipt, notes=marks or {}, created_at=now
    )
    books.orders[made.id] = made
    return made


def new_payment(
    books: Books,
    now: int,
    order: Order | None,
    method: Method,
    *,
    paise: int,
    kind: PaymentKind,
    description: str,
    subscription: Subscription | None = None,
) -> Payment:
    """Creates a payment."""
    by_card = method.startswith("card")
    made = Payment(
        id=new_id("pay"),
        amount=paise,
        currency=order.currency if order else "INR",
        status="created",
        order_id=order.id if order else None,
        international=method == "card_international",
        method="card" if by_card else method,
        description=description,
        card_id=new_id("card") if by_card else None,
        vpa=_VPA if method == "upi" else None,
        bank="HDFC" if method == "emandate" else None,
        created_at=now,
        kind=kind,
    )
    if subscription is not None:
        made.subscription_id = subscription.id
        made.email, made.contact = subscription.customer_email, subscription.customer_contact
        made.customer_id, made.token_id = subscription.customer_id, subscription.token_id
        made.card_id = subscription.card_id if by_card else None
    if order is not None:
        order.attempts += 1
        order.status = "attempted"
    books.payments[made.id] = made
    return made


def capture(books: Books, payment: Payment, now: int, *, silent: bool = False) -> None:
    """Captures a payment; `fee` is Razorpay's fee with GST, `tax` that GST."""
    net = (payment.amount * _FEE_PERCENT + 50) // 100
    payment.tax = net * _GST_PERCENT // 100
    payment.fee = net + payment.tax
    payment.status = "authorized"
    if not silent:
        events.payment(books, now, "authorized", payment)
    payment.status = "captured"
    if payment.order_id is not None:
        order = books.orders[payment.order_id]
        order.amount_paid += payment.amount
        order.status = "paid" if order.amount_paid >= order.amount else order.status
    if not silent:
        events.payment(books, now, "captured", payment)


def fail(books: Books, payment: Payment, reason: str, now: int, *, silent: bool = False) -> None:
    """Fails a payment. The first payment of a subscription fails without an event."""
    payment.status = "failed"
    payment.error_code = "BAD_REQUEST_ERROR"
    payment.error_description = _SAID.get(reason, "Payment failed.")
    payment.error_source, payment.error_step, payment.error_reason = "customer", "payment_authorization", reason
    if not silent:
        events.payment(books, now, "failed", payment)


def pay_order(books: Books, key: str, method: Method, reason: str, now: int) -> Payment:
    """Pays an order in Checkout, or fails for a `reason`."""
    order = find(books.orders, key)
    if order.status == "paid":
        raise Refused("Order already paid")
    made = new_payment(books, now, order, method, paise=order.amount, kind="order", description="Order")
    made.notes = dict(order.notes)
    if reason != OK:
        fail(books, made, reason, now)
        return made
    capture(books, made, now)
    events.order_paid(books, now, order, made)
    return made


def capture_again(books: Books, key: str) -> Payment:
    """`POST /v1/payments/:id/capture`: every payment is captured automatically already."""
    payment = find(books.payments, key)
    if payment.status == "captured":
        raise Refused("This payment has already been captured")
    raise Refused("Only payments which have been authorized and not yet captured can be captured")
