"""Registration of a mandate: by a link that Razorpay hosts, or by an order that Checkout pays.

A registration is an invoice of type `link`; a receipt is not unique. Authorising takes its amount, as a payment that
names the token. Assumptions: Razorpay keeps that payment for the merchant, except after a rejection, which it refunds;
a payer who was on the page may authorise a link that was closed meanwhile (`late`).
"""

from typing import Any

from sandbox.razorpay import catalogue, charging, events, payments, refunds
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.entities import Invoice, Method, Order, Payment
from sandbox.razorpay.instruments import tokens
from sandbox.razorpay.instruments.entities import Terms, Token
from sandbox.razorpay.payments import OK
from sandbox.razorpay.refusals import MIN_AMOUNT_PAISE, Refused, amount, integer, notes, required

Json = dict[str, Any]

_YEAR_S = 365 * 86_400
_DEFAULT_YEARS, _MOST_YEARS = 10, 30
_MOST_PAISE = {"upi": 9_999_900, "card": 100_000_000, "emandate": 1_000_000_000}
_FREQUENCIES = ("as_presented", "monthly")
_MAX_RECEIPT = 40
_SOONEST_S = 15 * 60
ANSWERS = ("confirmed", "rejected")


def create(books: Books, body: Json, now: int) -> Invoice:
    """`POST /v1/subscription_registration/auth_links`; raises Refused, also without the customer's phone number."""
    if required(body, "type") != "link":
        raise Refused("The selected type is invalid.", field="type")
    asked = required(body, "customer")
    payer = {name: str(required(asked, name)) for name in ("name", "email", "contact")}
    currency, description = _currency(body), str(required(body, "description"))
    paise = amount(body)
    receipt = _receipt(body)
    terms = read_terms(dict(required(body, "subscription_registration")), None, now)
    expire_by = integer(body, "expire_by") if body.get("expire_by") is not None else None
    if expire_by is not None and expire_by < now + _SOONEST_S:
        raise Refused("expire_by should be at least 15 minutes after current time.")
    customer = catalogue.create_customer(books, {**payer, "fail_existing": "0"}, now)
    order = payments.new_order(books, now, paise, currency, receipt=receipt, marks=notes(body))
    order.mandate, order.customer_id = terms, customer.id
    key = new_id("inv")
    made = Invoice(
        id=key,
        subscription_id=None,
        type="link",
        receipt=receipt,
        customer_id=customer.id,
        customer=payer,
        order_id=order.id,
        line_items=[],
        expire_by=expire_by,
        issued_at=now,
        amount=paise,
        currency=currency,
        description=description,
        notes=notes(body),
        short_url=books.page(key),
        created_at=now,
    )
    books.invoices[key] = made
    return made


def _currency(body: Json) -> str:
    currency = str(required(body, "currency"))
    if currency != "INR":
        raise Refused("The currency should be INR when method is upi", field="currency")
    return currency


def _receipt(body: Json) -> str | None:
    receipt = body.get("receipt")
    if receipt is not None and len(str(receipt)) > _MAX_RECEIPT:
        raise Refused("The receipt may not be greater than 40 characters.", field="receipt")
    return None if receipt is None else str(receipt)


def read_terms(body: Json, method: str | None, now: int) -> Terms:
    """The mandate asked for; raises Refused."""
    method = str(method or required(body, "method"))
    if method not in _MOST_PAISE:
        raise Refused("The selected method is invalid.", field="method")
    most = integer(body, "max_amount")
    if not MIN_AMOUNT_PAISE <= most <= _MOST_PAISE[method]:
        raise Refused(
            f"The max amount must be between {MIN_AMOUNT_PAISE} and {_MOST_PAISE[method]}.", field="max_amount"
        )
    frequency = str(required(body, "frequency"))
    if frequency not in _FREQUENCIES:
        raise Refused("The selected frequency is invalid.", field="frequency")
    expire_at = integer(body, "expire_at", now + _DEFAULT_YEARS * _YEAR_S)
    if not now < expire_at <= now + _MOST_YEARS * (_YEAR_S + 86_400):
        raise Refused("The expire at is invalid.", field="expire_at")
    return Terms(method=method, max_amount=most, expire_at=expire_at, frequency=frequency)


def create_order(books: Books, body: Json, now: int) -> Order:
    """`POST /v1/orders`: plain, with `token{}` for a mandate, or with `notification{}` for a debit in two steps."""
    terms = None
    if body.get("token") is not None:
        find(books.customers, str(required(body, "customer_id")))
        terms = read_terms(dict(body["token"]), str(required(body, "method")), now)
        if terms.method == "upi" and integer(body, "amount") > terms.max_amount:
            raise Refused("The order amount cannot be greater than the token max amount for upi recurring.")
    notice = body.get("notification")
    if notice is not None and str(required(notice, "token_id")) not in books.tokens:
        raise Refused("The id provided does not exist")
    made = payments.create_order(books, body, now)
    if terms is not None and made.mandate is None:
        made.mandate, made.customer_id = terms, str(body["customer_id"])
    if notice is not None and made.notification is None:
        made.notification = {
            "token_id": notice["token_id"],
            "payment_after": integer(notice, "payment_after", now + books.settings.notice_s["upi"]),
            "id": new_id("notification"),
        }
    return made


def authorise(
    books: Books, key: str, method: Method, now: int, *, reason: str = OK, answer: str = "confirmed", late: bool = False
) -> Payment:
    """Pays a registration link, which makes the token; fails for a `reason`. Raises Refused."""
    invoice = find(books.invoices, key)
    if invoice.type != "link":
        raise Refused("This is not a registration link.")
    if invoice.status != "issued" and not (late and invoice.status in ("cancelled", "expired")):
        raise Refused(f"Operation not allowed for Invoice in {invoice.status} status.")
    order = books.orders[invoice.order_id or ""]
    payment = _pay(books, order, method, now, description=f"Invoice #{invoice.id}")
    payment.invoice_id, payment.notes = invoice.id, dict(invoice.notes)
    payment.email, payment.contact = invoice.customer.get("email"), invoice.customer.get("contact")
    if reason != OK:
        payments.fail(books, payment, reason, now)
        return payment
    token = _take(books, order, payment, method, answer, now)
    if invoice.status == "issued":
        charging.settle(books, invoice, payment, now)
    else:
        events.order_paid(books, now, order, payment)
    return _finish(books, token, payment, now)


def pay_order(books: Books, key: str, method: Method, reason: str, now: int, *, answer: str = "confirmed") -> Payment:
    """Pays an order in Checkout; one with a mandate makes the token."""
    order = find(books.orders, key)
    if order.mandate is None:
        return payments.pay_order(books, key, method, reason, now)
    payment = _pay(books, order, method, now, description="Order")
    payment.notes = dict(order.notes)
    if reason != OK:
        payments.fail(books, payment, reason, now)
        return payment
    token = _take(books, order, payment, method, answer, now)
    events.order_paid(books, now, order, payment)
    return _finish(books, token, payment, now)


def _pay(books: Books, order: Order, method: Method, now: int, *, description: str) -> Payment:
    wanted = order.mandate.method if order.mandate else method
    if method.partition("_")[0] != wanted:
        raise Refused(f"The mandate is by {wanted}.", field="method")
    if order.status == "paid":
        raise Refused("Order already paid")
    payment = payments.new_payment(
        books, now, order, method, paise=order.amount, kind="authorisation", description=description
    )
    payment.customer_id = order.customer_id
    return payment


def _take(books: Books, order: Order, payment: Payment, method: Method, answer: str, now: int) -> Token:
    """Captures the payment; returns its new token."""
    if order.mandate is None or answer not in ANSWERS:
        raise Refused(f"answer: one of {', '.join(ANSWERS)}")
    token = tokens.make(books, order.mandate, order.customer_id or "", payment, method, answer, now)
    payment.token_id = token.id
    payments.capture(books, payment, now)
    return token


def _finish(books: Books, token: Token, payment: Payment, now: int) -> Payment:
    """The bank's answer, where it comes at once; a rejected mandate's payment is refunded."""
    if token.answer_at is not None and token.answer_at <= now:
        tokens.answered(books, token, now)
    if token.answer == "rejected":
        refunds.give_back(books, payment, {}, now, by="razorpay")
    return payment
