"""Mandates and QR codes on the payer's pages: what a page says, how it is paid, and what the buttons do.

The page of a registration becomes the payer's UPI app once it is authorised: it declines a debit, and pauses, resumes
or cancels the mandate.
"""

from sandbox.razorpay.books import Books
from sandbox.razorpay.calendar import in_india
from sandbox.razorpay.entities import METHODS, Invoice, Method, Payment
from sandbox.razorpay.instruments import debits, qr_codes, registrations, tokens
from sandbox.razorpay.instruments.entities import Token
from sandbox.razorpay.payments import rupees
from sandbox.razorpay.refusals import Refused


def what(books: Books, target: str) -> tuple[str, int | None, str] | None:
    """Title, amount (None: nothing to pay) and text; None for another kind of page."""
    if code := books.qr_codes.get(target):
        said = code.description or "Scan and pay" if code.status == "active" else "This code is closed."
        return "QR code", code.payment_amount if code.status == "active" else None, said
    invoice = books.invoices.get(target)
    return _mandate(books, invoice) if invoice is not None and invoice.type == "link" else None


def _mandate(books: Books, invoice: Invoice) -> tuple[str, int | None, str]:
    terms = books.orders[invoice.order_id or ""].mandate
    if token := _token(books, invoice.id):
        return "Mandate", None, f"The mandate is {token.status}."
    if invoice.status != "issued" or terms is None:
        return "Mandate", None, f"The registration is {invoice.status}."
    most, until = rupees(terms.max_amount), in_india(terms.expire_at)
    said = f"{invoice.description}. Each debit is at most ₹ {most}, until {until:%d %B %Y}."
    return "Authorise a mandate", invoice.amount, f"{said} You get a notice a day before each debit."


def _token(books: Books, registration_id: str) -> Token | None:
    """The token that a registration made."""
    paid = (each for each in books.payments.values() if each.invoice_id == registration_id and each.token_id)
    return next((books.tokens[each.token_id or ""] for each in paid), None)


def actions(books: Books, target: str) -> list[tuple[str, str, str]]:
    """(value, button, text) of what the payer can do with a mandate and its debits."""
    token = _token(books, target) if target in books.invoices else None
    if token is None or token.status not in ("confirmed", "paused"):
        return []
    found = [
        (f"decline {each.payment_id}", "Decline this debit", f"₹ {rupees(each.amount)} {_day(due)}")
        for each in books.debits.values()
        if each.token_id == token.id and (due := each.due_at) is not None
    ]
    if token.terms.method == "upi":
        found.append(("resume", "Resume", "") if token.status == "paused" else ("pause", "Pause", ""))
    return [*found, ("cancel", "Cancel the mandate", "")]


def _day(at: int) -> str:
    return f"will be debited on {in_india(at):%d %B, %H:%M}."


def act(books: Books, target: str, action: str, now: int) -> None:
    """Does one of these; raises Refused."""
    token = _token(books, target)
    if token is None:
        raise Refused("There is no mandate on this page.")
    name, _, payment_id = action.partition(" ")
    if name in tokens.ACTIONS:
        tokens.ACTIONS[name](books, token, now)
    elif payment_id in books.debits and books.debits[payment_id].token_id == token.id:
        debits.opt_out(books, payment_id, now)
    else:
        raise Refused("This page cannot do that.")


def methods(books: Books, target: str) -> list[Method]:
    """The methods that the page offers."""
    if target in books.qr_codes:
        return ["upi"]
    invoice = books.invoices.get(target)
    terms = books.orders[invoice.order_id].mandate if invoice and invoice.order_id else None
    return [each for each in METHODS if terms is None or each.partition("_")[0] == terms.method]


def pay(books: Books, target: str, method: Method, reason: str, now: int) -> Payment | None:
    """The button's payment; None for another kind of page. Raises Refused."""
    if target in books.qr_codes:
        return qr_codes.pay(books, target, None, now, reason=reason)
    if target in books.invoices and books.invoices[target].type == "link":
        return registrations.authorise(books, target, method, now, reason=reason)
    return None
