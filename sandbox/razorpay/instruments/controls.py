"""The test's controls of mandates, debits and QR codes, and payments of strangers."""

from sandbox.razorpay import payments, wire
from sandbox.razorpay.books import find
from sandbox.razorpay.entities import Json, Method, Payment
from sandbox.razorpay.instruments import debits, qr_codes, registrations, shapes, tokens
from sandbox.razorpay.instruments.entities import Token
from sandbox.razorpay.payments import OK
from sandbox.razorpay.refusals import Refused, integer, notes, required
from sandbox.razorpay.router import Call, Handler

_MOST_STRANGERS = 100_000
_STRANGER_PAISE = 10_000


def chosen_method(call: Call) -> Method:
    """The `method` of a control's body, `upi` without one; raises Refused."""
    return payments.method_of(call.body.get("method", "upi"))


def outcome(call: Call) -> str:
    """The `outcome` of a control's body: `ok`, or an error's reason."""
    return str(call.body.get("outcome", OK))


def _paid(call: Call, payment: Payment) -> Json:
    """The payment and its token, if it made one."""
    token = call.books.tokens.get(payment.token_id or "")
    return {**wire.payment(payment), "token": None if token is None else shapes.token(token)}


def _authorise(call: Call) -> Json:
    """`{method, outcome, answer: confirmed | rejected, late}`; answers the payment with its token."""
    payment = registrations.authorise(
        call.books,
        call.ids[0],
        chosen_method(call),
        call.now,
        reason=outcome(call),
        answer=str(call.body.get("answer", "confirmed")),
        late=bool(call.body.get("late", False)),
    )
    return _paid(call, payment)


def _pay_order(call: Call) -> Json:
    """`{method, outcome, answer}`: in Checkout."""
    answer = str(call.body.get("answer", "confirmed"))
    payment = registrations.pay_order(
        call.books, call.ids[0], chosen_method(call), outcome(call), call.now, answer=answer
    )
    return _paid(call, payment) if payment.token_id else wire.payment(payment)


def _token(call: Call) -> Token:
    return find(call.books.tokens, call.ids[0])


def _outcomes(call: Call) -> Json:
    """`{next: ["insufficient_funds", "ok"]}`: outcomes of the next tries; `late` fails, and is captured later."""
    token = _token(call)
    token.outcomes = [str(each) for each in call.body.get("next") or []]
    return {"next": token.outcomes}


def _customer(call: Call) -> Json:
    """`{action: cancel | pause | resume}`: in the payer's app."""
    token, action = _token(call), required(call.body, "action")
    if action not in tokens.ACTIONS:
        raise Refused("action: cancel, pause or resume")
    tokens.ACTIONS[action](call.books, token, call.now)
    return shapes.token(token)


def _pay_qr(call: Call) -> Json:
    """`{amount, outcome, late}`: the code is scanned."""
    paise = integer(call.body, "amount") if call.body.get("amount") is not None else None
    late = bool(call.body.get("late", False))
    return wire.payment(qr_codes.pay(call.books, call.ids[0], paise, call.now, reason=outcome(call), late=late))


def _strangers(call: Call) -> Json:
    """`{count, since, until, notes}`: captured payments of another product, spread evenly, without events."""
    count, since = integer(call.body, "count"), integer(call.body, "since")
    until = integer(call.body, "until", call.now)
    marks = notes(call.body)
    if not 0 < count <= _MOST_STRANGERS:
        raise Refused(f"count: 1 to {_MOST_STRANGERS}")
    for number in range(count):
        at = since + (until - since) * number // count
        order = payments.new_order(call.books, at, _STRANGER_PAISE, "INR")
        payment = payments.new_payment(
            call.books, at, order, "upi", paise=order.amount, kind="order", description="Another product"
        )
        payment.notes = marks
        payments.capture(call.books, payment, at, silent=True)
    return {"count": count}


CONTROLS: dict[str, Handler] = {
    "POST /_sim/registrations/:id/authorise": _authorise,
    "POST /_sim/orders/:id/pay": _pay_order,
    "POST /_sim/tokens/:id/outcomes": _outcomes,
    "POST /_sim/tokens/:id/customer": _customer,
    "POST /_sim/payments/:id/opt_out": lambda c: wire.payment(debits.opt_out(c.books, c.ids[0], c.now)),
    "POST /_sim/payments/:id/authorise_late": lambda c: wire.payment(debits.authorise_late(c.books, c.ids[0], c.now)),
    "POST /_sim/qr_codes/:id/pay": _pay_qr,
    "POST /_sim/strangers": _strangers,
}
