"""The payer's actions on a subscription: authorise, change the card, pay open invoices, revoke.

Facts section 3: an immediate start is paid at once and starts the first cycle; a future start takes a token payment,
which is refunded; an e-mandate's first debit waits a day in status `created`; UPI is not offered above the cap.
"""

import hashlib
import hmac

from sandbox.razorpay import charging, events, payments, refunds, subscriptions
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.calendar import boundary
from sandbox.razorpay.entities import Customer, Invoice, Method, Order, Payment, Subscription
from sandbox.razorpay.payments import OK
from sandbox.razorpay.refusals import Refused

TOKEN_PAISE = 500
_CHANGES = {
    "card_domestic": ("card_domestic", "card_international", "upi", "emandate"),
    "card_international": ("card_domestic", "card_international", "upi", "emandate"),
    "upi": ("card_domestic", "card_international"),
    "emandate": ("card_domestic", "card_international"),
}
_EMAIL, _CONTACT = "payer@tenant.example", "+919812345670"


def signed(secret: str, *parts: str) -> str:
    """The signature of a callback."""
    return hmac.new(secret.encode(), "|".join(parts).encode(), hashlib.sha256).hexdigest()


def checkout(books: Books, payment: Payment, sub: Subscription) -> dict[str, str]:
    """The three fields that Checkout passes to the browser's handler."""
    return {
        "razorpay_payment_id": payment.id,
        "razorpay_subscription_id": sub.id,
        "razorpay_signature": signed(books.key_secret, payment.id, sub.id),
    }


def authorise(
    books: Books, key: str, method: Method, now: int, *, reason: str = OK, email: str = "", contact: str = ""
) -> Payment:
    """Makes the authorisation payment, which may fail for a `reason`; raises Refused."""
    sub = find(books.subscriptions, key)
    if sub.status != "created" or sub.method is not None:
        raise Refused(f"Subscription cannot be authorised in {sub.status} status.", field="status")
    paise = due(books, sub)
    if method == "upi" and paise > books.settings.cap_paise.get("upi", paise):
        raise Refused("UPI is not offered for this amount.", field="method")
    sub.customer_email, sub.customer_contact = email or _EMAIL, contact or _CONTACT
    if reason != OK:
        order = payments.new_order(books, now, paise, books.plans[sub.plan_id].item.currency)
        failed = _pay(books, sub, order, method, now)
        payments.fail(books, failed, reason, now, silent=True)
        return failed
    _take_method(books, sub, method, now)
    if sub.start_at is not None:
        return _authenticate(books, sub, method, now)
    if method == "emandate" and books.settings.debit_delay_s.get("emandate"):
        return _register(books, sub, method, now)
    return start_now(books, sub, now)


def due(books: Books, sub: Subscription) -> int:
    """The amount of the authorisation payment: first cycle and upfront add-ons, only those, or a token."""
    upfront = sum(a.item.amount * a.quantity for a in books.addons.values() if a.subscription_id == sub.id)
    if sub.start_at is None:
        return upfront + books.plans[sub.plan_id].item.amount * sub.quantity
    return upfront or TOKEN_PAISE


def _take_method(books: Books, sub: Subscription, method: Method, now: int) -> None:
    """Stores the subscription's payment method."""
    by_card = method.startswith("card")
    sub.method, sub.payment_method = method, "card" if by_card else method
    sub.token_id, sub.card_id = new_id("token"), new_id("card") if by_card else None
    if sub.customer_id is None and (method == "card_international" or books.settings.indian_customer_ids):
        made = Customer(
            id=new_id("cust"),
            name=None,
            email=sub.customer_email,
            contact=sub.customer_contact,
            created_at=now,
        )
        books.customers[made.id] = made
        sub.customer_id = made.id


def _pay(books: Books, sub: Subscription, order: Order, method: Method, now: int) -> Payment:
    return payments.new_payment(
        books,
        now,
        order,
        method,
        paise=order.amount,
        kind="authorisation",
        description="Subscription authorisation",
        subscription=sub,
    )


def start_now(books: Books, sub: Subscription, now: int) -> Payment:
    """Starts the first cycle with its payment."""
    sub.start_at = now
    sub.end_at = charging.end_of_cycle(books, sub, sub.total_count - 1)
    invoice = charging.open_cycle(books, sub, now, started=now)
    payment = _pay(books, sub, books.orders[invoice.order_id or ""], sub.method or "card_domestic", now)
    payment.invoice_id = invoice.id
    started, ends = sub.current_start, sub.current_end
    sub.status, sub.current_start, sub.current_end = "authenticated", None, None
    _say_authenticated(books, sub, now, payment)
    sub.status, sub.current_start, sub.current_end = "active", started, ends
    payments.capture(books, payment, now)
    charging.settle(books, invoice, payment, now)
    sub.paid_count, sub.charge_at = 1, None if charging.is_last(sub) else ends
    events.subscription(books, now, "activated", sub, payment)
    events.subscription(books, now, "charged", sub, payment)
    if charging.is_last(sub):
        charging.complete(books, sub, now, payment)
    return payment


def _authenticate(books: Books, sub: Subscription, method: Method, now: int) -> Payment:
    """For a future start: keeps an upfront amount, refunds a token payment."""
    plan = books.plans[sub.plan_id]
    sub.end_at = boundary(sub.start_at or now, sub.total_count - 1, plan.period, plan.interval)
    sub.charge_at = sub.start_at
    waiting = any(a.subscription_id == sub.id and a.invoice_id is None for a in books.addons.values())
    invoice = charging.issue(books, sub, [], now) if waiting else None
    order = (
        books.orders[invoice.order_id or ""]
        if invoice
        else payments.new_order(books, now, TOKEN_PAISE, plan.item.currency)
    )
    payment = _pay(books, sub, order, method, now)
    payments.capture(books, payment, now)
    sub.status = "authenticated"
    if invoice is not None:
        charging.settle(books, invoice, payment, now)
    _say_authenticated(books, sub, now, payment)
    if invoice is None:
        refunds.give_back(books, payment, {}, now, by="razorpay")
    return payment


def _register(books: Books, sub: Subscription, method: Method, now: int) -> Payment:
    """Registers an e-mandate, which is debited on another day."""
    payment = payments.new_payment(
        books, now, None, method, paise=0, kind="authorisation", description="Registration", subscription=sub
    )
    payments.capture(books, payment, now, silent=True)
    sub.charge_at = now + books.settings.debit_delay_s["emandate"]
    return payment


def _say_authenticated(books: Books, sub: Subscription, now: int, payment: Payment) -> None:
    if books.settings.authenticated_events:
        events.subscription(books, now, "authenticated", sub, payment)


def change_method(books: Books, key: str, method: Method, now: int) -> Subscription:
    """Changes the card: a pending subscription charges its last invoice, a halted one only becomes active."""
    sub = find(books.subscriptions, key)
    if sub.status not in ("active", "pending", "halted"):
        raise Refused(f"The card cannot be changed in {sub.status} status.", field="status")
    if sub.method is None or method not in _CHANGES[sub.method]:
        raise Refused(f"The method cannot be changed from {sub.method} to {method}.", field="method")
    _take_method(books, sub, method, now)
    if sub.status == "pending":
        sub.outcomes.clear()
        charging.attempt(books, sub, books.invoices[sub.invoice_id or ""], now)
    elif sub.status == "halted":
        sub.status, sub.halted_at, sub.auth_attempts = "active", None, 0
        sub.charge_at = None if charging.is_last(sub) else sub.current_end
        events.subscription(books, now, "activated", sub)
    return sub


def pay_invoice(books: Books, key: str, method: Method, now: int, *, reason: str = OK) -> Payment:
    """Pays an open invoice by hand, which reactivates its subscription."""
    invoice = find(books.invoices, key)
    if invoice.status != "issued":
        raise Refused(f"Operation not allowed for Invoice in {invoice.status} status.")
    order = books.orders[invoice.order_id or ""]
    sub = books.subscriptions.get(invoice.subscription_id or "")
    payment = payments.new_payment(
        books, now, order, method, paise=invoice.amount, kind="invoice", description=f"Invoice #{invoice.id}"
    )
    payment.invoice_id, payment.subscription_id = invoice.id, invoice.subscription_id
    payment.notes = dict(invoice.notes)
    if reason != OK:
        payments.fail(books, payment, reason, now)
        return payment
    payments.capture(books, payment, now)
    _settle_by_hand(books, invoice, payment, sub, now)
    return payment


def _settle_by_hand(books: Books, invoice: Invoice, payment: Payment, sub: Subscription | None, now: int) -> None:
    charging.settle(books, invoice, payment, now)
    if sub is not None:
        charging.charged(books, sub, payment, now)


def revoke(books: Books, key: str, now: int) -> Subscription:
    """Revokes the mandate: UPI cancels; with other methods the next charges fail."""
    sub = find(books.subscriptions, key)
    if sub.method == "upi" and sub.status not in ("cancelled", "completed", "expired"):
        subscriptions.end(books, sub, now, by="customer")
    else:
        sub.outcomes = ["mandate_cancelled"] * charging.MAX_ATTEMPTS
    return sub
