"""Steps that time makes due: the bank's answer to a registration, tries of debits, and the closing of QR codes."""

from collections.abc import Iterator

from sandbox.razorpay.books import Books
from sandbox.razorpay.instruments import debits, qr_codes, tokens
from sandbox.razorpay.instruments.entities import Debit, QrCode, Token

Waiting = Token | Debit | QrCode


def waiting(books: Books) -> list[Waiting]:
    """Everything that has a next moment."""
    kept: Iterator[Waiting] = (
        each for group in (books.tokens, books.debits, books.qr_codes) for each in group.values()
    )
    return [each for each in kept if next_at(each) is not None]


def next_at(thing: Waiting) -> int | None:
    """The time of its next step."""
    if isinstance(thing, Token):
        return thing.answer_at
    if isinstance(thing, Debit):
        return debits.next_at(thing)
    return thing.close_by if thing.status == "active" else None


def step(books: Books, thing: Waiting, now: int) -> None:
    """Makes the step."""
    if isinstance(thing, Token):
        tokens.answered(books, thing, now)
    elif isinstance(thing, Debit):
        debits.step(books, thing, now)
    else:
        qr_codes.expire(thing, now)
