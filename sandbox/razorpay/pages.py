"""The pages behind `short_url`: a form to choose method and outcome; and `/`.

A click does the same as `/_sim`. All output is escaped; no script, no external resource.
"""

from html import escape
from itertools import islice
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.responses import HTMLResponse, RedirectResponse, Response

from sandbox.razorpay import authorisation, links
from sandbox.razorpay.books import Books
from sandbox.razorpay.calendar import in_india
from sandbox.razorpay.entities import Payment
from sandbox.razorpay.instruments import pages as instruments
from sandbox.razorpay.payments import OK, method_of, rupees
from sandbox.razorpay.refusals import Refused

_OUTCOMES = {
    OK: "the payment succeeds",
    "insufficient_funds": "insufficient funds",
    "payment_timed_out": "the payer does not answer",
}
_NAMES = {
    "upi": "UPI",
    "card_domestic": "Indian card",
    "card_international": "International card",
    "emandate": "e-mandate",
}
_MAX_ROWS = 100
_JUMPS = {1: "A day later", 7: "A week later", 31: "A month later"}
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:3rem auto;padding:0 1rem;color:#14213d}}
small{{color:#56607a}}label{{display:block;padding:.2rem 0}}fieldset{{border:1px solid #cbd2e1;margin:1rem 0}}
button{{font:inherit;padding:.6rem 1.4rem;background:#14398a;color:#fff;border:0;border-radius:4px}}
</style></head><body><small>Razorpay simulator: no money moves</small><h1>{title}</h1>{body}</body></html>"""


def front(books: Books, now: int) -> Response:
    """`/`: the time, a button to advance it, and the newest pages."""
    rows = [
        f"<li><a href='/rzp/{escape(code)}'>{escape(title)}</a> <small>{escape(target)}: {escape(said)}</small></li>"
        for code, target in islice(reversed(books.pages.items()), _MAX_ROWS)
        for title, _, said in [_what(books, target)]
    ]
    buttons = "".join(f"<button name='days' value='{days}'>{text}</button> " for days, text in _JUMPS.items())
    moment = in_india(now)
    body = (
        f"<p>It is <strong id='now'>{moment:%d %B %Y, %H:%M}</strong> in India.</p><form method='post'>{buttons}</form>"
        f"<ul>{''.join(rows) or '<li>Nothing to pay yet.</li>'}</ul>"
    )
    return _page("Razorpay, on this machine", body)


def days_of(form: bytes) -> int:
    """Days that a button on `/` advances; None for an unknown one."""
    asked = parse_qs(form.decode("utf-8", "replace")).get("days", [""])[0]
    return next((days for days in _JUMPS if str(days) == asked), 0)


def show(books: Books, code: str) -> Response:
    """The page of a short code."""
    target = books.pages.get(code)
    if target is None:
        return _page("Nothing here", "<p>There is no such page.</p>", 404)
    title, paise, question = _what(books, target)
    if paise is None:
        return _page(title, f"<p id='state'>{escape(question)}</p>{_actions(books, target)}")
    methods = instruments.methods(books, target)
    choices = "".join(
        f"<label><input type='radio' name='method' value='{each}'{' checked' if each == methods[0] else ''}> "
        f"{_NAMES[each]}</label>"
        for each in methods
    )
    outcomes = "".join(
        f"<label><input type='radio' name='outcome' value='{each}'{' checked' if each == OK else ''}> {text}</label>"
        for each, text in _OUTCOMES.items()
    )
    form = (
        f"<p>{escape(question)}</p><p><strong id='amount'>₹ {rupees(paise)}</strong></p>"
        f"<form method='post'><fieldset><legend>Pay by</legend>{choices}</fieldset>"
        f"<fieldset><legend>And then</legend>{outcomes}</fieldset><button>Pay</button></form>"
    )
    return _page(title, form)


def act(books: Books, code: str, form: bytes, now: int) -> Response:
    """The button's action."""
    target = books.pages.get(code)
    if target is None:
        return show(books, code)
    fields = parse_qs(form.decode("utf-8", "replace"))
    reason = fields.get("outcome", [OK])[0]
    try:
        if action := fields.get("action", [""])[0]:
            instruments.act(books, target, action, now)
            return RedirectResponse(f"/rzp/{code}", status_code=303)
        return _pay(books, target, fields.get("method", [""])[0], reason, now)
    except Refused as refused:
        return _page("Not possible", f"<p id='state'>{escape(str(refused))}</p>{_again(code)}", 400)


def _pay(books: Books, target: str, method_name: str, reason: str, now: int) -> Response:
    """Pays the entity of the page."""
    method = method_of(method_name)
    if target in books.subscriptions:
        if books.subscriptions[target].status != "created":
            authorisation.change_method(books, target, method, now)
            return _page("Payment method changed", "<p id='state'>changed</p>")
        return _said(authorisation.authorise(books, target, method, now, reason=reason))
    if target in books.links:
        link, payment = books.links[target], links.pay(books, target, method, now, reason=reason)
        if payment.status == "captured" and link.callback_url:
            joint = "&" if urlsplit(link.callback_url).query else "?"
            address = f"{link.callback_url}{joint}{urlencode(links.callback(books, link, payment))}"
            return RedirectResponse(address, status_code=303)
        return _said(payment)
    paid = instruments.pay(books, target, method, reason, now)
    return _said(paid or authorisation.pay_invoice(books, target, method, now, reason=reason))


def _what(books: Books, target: str) -> tuple[str, int | None, str]:
    """Title, amount (None: nothing to pay) and text of a page."""
    if sub := books.subscriptions.get(target):
        plan = books.plans[sub.plan_id]
        if sub.status == "created" and sub.method is None:
            return f"Subscribe to {plan.item.name}", authorisation.due(books, sub), f"{sub.total_count} cycles"
        if sub.status in ("pending", "halted"):
            unpaid = books.invoices[sub.invoice_id or ""].amount
            return f"Change how you pay {plan.item.name}", unpaid, f"The subscription is {sub.status}."
        return plan.item.name, None, f"The subscription is {sub.status}."
    if link := books.links.get(target):
        is_open = link.status in ("created", "partially_paid")
        said = link.description if is_open else f"This link is {link.status}."
        return "Payment", link.amount if is_open else None, said
    if (invoice := books.invoices.get(target)) and invoice.type == "invoice":
        is_open = invoice.status == "issued"
        return "Invoice", invoice.amount if is_open else None, f"The invoice is {invoice.status}."
    return instruments.what(books, target) or ("Nothing here", None, "It was deleted.")


def _said(payment: Payment) -> Response:
    """The result of a payment."""
    if payment.status == "failed":
        text = escape(payment.error_description or "")
        return _page("Payment failed", f"<p id='state'>failed</p><p>{text}</p><p><a href=''>Try again</a></p>")
    return _page("Thank you", f"<p id='state'>paid</p><p>Payment {payment.id}. You can close this page.</p>")


def _actions(books: Books, target: str) -> str:
    """The buttons of the payer's UPI app, for a mandate."""
    buttons = "".join(
        f"<p>{escape(said)} <button name='action' value='{escape(action)}'>{escape(button)}</button></p>"
        for action, button, said in instruments.actions(books, target)
    )
    return f"<form method='post'>{buttons}</form>" if buttons else ""


def _again(code: str) -> str:
    return f"<p><a href='/rzp/{escape(code)}'>Back</a></p>"


def _page(title: str, body: str, status: int = 200) -> Response:
    return HTMLResponse(_PAGE.format(title=escape(title), body=body), status)
