"""A token from the bank's answer to its end.

`cancel` ends the mandate at NPCI; `delete` only makes Razorpay forget it. The payer can cancel, pause and resume it in
the UPI app. Assumption: a resumed one is told by `token.confirmed`.
"""

from sandbox.razorpay import events
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.entities import Method, Payment
from sandbox.razorpay.instruments import shapes
from sandbox.razorpay.instruments.entities import Terms, Token
from sandbox.razorpay.refusals import Refused, unknown


def make(books: Books, terms: Terms, customer_id: str, payment: Payment, by: Method, answer: str, now: int) -> Token:
    """The token of an authorised payment; the bank answers at once, or after its delay."""
    made = Token(
        id=new_id("token"),
        token=new_id(""),
        customer_id=customer_id,
        terms=terms,
        by=by,
        card_id=payment.card_id,
        payment_id=payment.id,
        created_at=now,
        answer_at=now + books.settings.token_delay_s.get(terms.method, 0),
        answer=answer,
    )
    books.tokens[made.id] = made
    return made


def answered(books: Books, token: Token, now: int) -> None:
    """The bank's answer to the registration."""
    token.answer_at, token.status = None, token.answer
    if token.status == "rejected":
        token.failure_reason = "Mandate registration was rejected by the bank."
    else:
        token.used_at = now
    _tell(books, token, now)


def of_customer(books: Books, customer_id: str, now: int) -> list[Token]:
    """The customer's tokens, without deleted and expired ones."""
    find(books.customers, customer_id)
    owned = [each for each in books.tokens.values() if each.customer_id == customer_id and not each.deleted]
    return [each for each in owned if each.terms.expire_at > now]


def owned(books: Books, customer_id: str, token_id: str) -> Token:
    """The token of this customer; raises Refused."""
    kept = books.tokens.get(token_id)
    if kept is None or kept.customer_id != customer_id or kept.deleted:
        raise unknown("token")
    return kept


def cancel(books: Books, token: Token, now: int) -> None:
    """Ends the mandate, by the merchant or the customer."""
    if token.status in ("cancelled", "rejected"):
        raise Refused(f"The token cannot be cancelled in {token.status} status.")
    token.status, token.answer_at = "cancelled", None
    _tell(books, token, now)


def pause(books: Books, token: Token, now: int) -> None:
    """Pauses it in the UPI app; no other method can."""
    if token.terms.method != "upi" or token.status != "confirmed":
        raise Refused(f"A {token.status} token by {token.terms.method} cannot be paused.")
    token.status = "paused"
    _tell(books, token, now)


def resume(books: Books, token: Token, now: int) -> None:
    """Resumes it."""
    if token.status != "paused":
        raise Refused(f"The token cannot be resumed in {token.status} status.")
    token.status = "confirmed"
    _tell(books, token, now)


ACTIONS = {"cancel": cancel, "pause": pause, "resume": resume}
"""The payer's actions in the UPI app."""


def _tell(books: Books, token: Token, now: int) -> None:
    """`token.<status>`."""
    events.emit(books, now, f"token.{token.status}", {"token": shapes.token(token)})
