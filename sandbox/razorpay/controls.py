"""`/_sim`: the test's controls: advance time, pay, order faults, read the ledger."""

import time
from collections.abc import Awaitable
from dataclasses import asdict, fields
from typing import Any

import msgspec

from sandbox.razorpay import authorisation, ledger, links, refunds, subscriptions, wire
from sandbox.razorpay.account import Account
from sandbox.razorpay.books import Settings, find
from sandbox.razorpay.calendar import DAY_S
from sandbox.razorpay.entities import Json
from sandbox.razorpay.faults import Fault, WebhookFault
from sandbox.razorpay.instruments.controls import CONTROLS, chosen_method, outcome
from sandbox.razorpay.refusals import Refused, integer, required
from sandbox.razorpay.router import Call, Handler

_DRAIN_S = 10.0


class Controls:
    """The handlers of `/_sim`."""

    def __init__(self, account: Account) -> None:
        """`account`: the controlled account."""
        self._account = account
        self._secret = account.books.secret

    def table(self) -> dict[str, Handler]:
        """The routes."""
        return {
            "GET /_sim/ledger": self._ledger,
            "GET /_sim/money": lambda call: ledger.money(call.books),
            "POST /_sim/reset": self._reset,
            "GET /_sim/clock": lambda _: self._clock(),
            "POST /_sim/clock": self._freeze,
            "POST /_sim/clock/advance": self._advance,
            "POST /_sim/settings": self._settings,
            "GET /_sim/faults": lambda _: self._show_faults(),
            "POST /_sim/faults": self._add_faults,
            "DELETE /_sim/faults": self._clear_faults,
            "GET /_sim/webhooks": lambda _: self._deliveries(),
            "POST /_sim/webhooks": self._endpoint,
            "POST /_sim/webhooks/drain": self._drain,
            "POST /_sim/webhooks/replay": self._replay,
            "POST /_sim/subscriptions/:id/authorise": _authorise,
            "POST /_sim/subscriptions/:id/outcomes": _outcomes,
            "POST /_sim/subscriptions/:id/change_method": _change_method,
            "POST /_sim/subscriptions/:id/customer": _customer,
            "POST /_sim/invoices/:id/pay": _pay_invoice,
            "POST /_sim/payment_links/:id/pay": _pay_link,
            "POST /_sim/payments/:id/refund": _refund,
            "POST /_sim/payments/:id/dispute": _dispute,
            "POST /_sim/disputes/:id/close": _close_dispute,
            **CONTROLS,
        }

    def _clock(self) -> Json:
        clock = self._account.clock
        return {"now": int(clock.now()), "frozen": clock.frozen, "offset_ms": clock.offset_ms}

    def _freeze(self, call: Call) -> Json:
        try:
            self._account.clock.freeze(frozen=bool(required(call.body, "frozen")))
        except ValueError as error:
            raise Refused(str(error)) from error
        return self._clock()

    async def _advance(self, call: Call) -> Json:
        """Advances by `seconds` and `days`, or `to` a time or `"now"`, step by step; answers after all due steps.

        With `drain` each step's webhooks get `timeout_s` to be delivered before the next step.
        """
        now = self._account.clock.now()
        to = call.body.get("to", now + call.body.get("seconds", 0) + call.body.get("days", 0) * DAY_S)
        real = to == "now"
        drain_s = float(call.body.get("timeout_s", _DRAIN_S)) if call.body.get("drain") else 0.0
        try:
            await self._account.move(time.time() if real else float(to), drain_s=drain_s)
        except ValueError as error:
            raise Refused(str(error)) from error
        if real:
            self._account.clock.catch_up(0)  # the move took some time
        return self._clock()

    async def _reset(self, call: Call) -> Json:
        """Resets, with `start`, `webhook_url` and `webhook_secret` as on the command line."""
        start = integer(call.body, "start") if call.body.get("start") is not None else None
        secret = str(call.body.get("webhook_secret") or self._secret)
        await self._account.reset(start=start, webhook_secret=secret, webhook_url=call.body.get("webhook_url"))
        return self._clock()

    def _settings(self, call: Call) -> Json:
        settings = self._account.books.settings
        names = {each.name for each in fields(Settings)}
        for name, value in call.body.items():
            if name not in names:
                raise Refused(f"{name}: not a setting")
            old = getattr(settings, name)
            setattr(settings, name, old | value if isinstance(old, dict) else value)
        return asdict(settings)

    def _show_faults(self) -> Json:
        faults = self._account.faults
        return {
            "answers": [msgspec.to_builtins(each) for each in faults.answers],
            "webhooks": [msgspec.to_builtins(each) for each in faults.webhooks],
        }

    def _add_faults(self, call: Call) -> Json:
        """One fault, or `{"faults": [...]}`; one with `event` is for webhooks of later events."""
        self._account.postman.collect()
        try:
            for each in call.body.get("faults", [call.body]):
                if "event" in each:
                    self._account.faults.webhooks.append(msgspec.convert(each, WebhookFault))
                else:
                    self._account.faults.answers.append(msgspec.convert(each, Fault))
        except msgspec.ValidationError as error:
            raise Refused(str(error)) from error
        return self._show_faults()

    def _clear_faults(self, _call: Call) -> Json:
        self._account.postman.collect()
        self._account.faults.clear()
        self._account.postman.release()
        return self._show_faults()

    def _endpoint(self, call: Call) -> Json:
        """Changes `url`, `secret` (the last one stays as the old one), `enabled`, `timeout_s`."""
        books, endpoint = self._account.books, self._account.postman.endpoint
        self._account.postman.collect()
        if "secret" in call.body and call.body["secret"] != books.secret:
            books.old_secret, books.secret = books.secret, str(call.body["secret"])
        endpoint.url = call.body.get("url", endpoint.url)
        endpoint.timeout_s = float(call.body.get("timeout_s", endpoint.timeout_s))
        if "enabled" in call.body:
            endpoint.enabled, endpoint.failing_since = bool(call.body["enabled"]), None
        return asdict(endpoint)

    def _drain(self, call: Call) -> Awaitable[Json]:
        """Sends held events and waits until none is due."""
        self._account.postman.release()
        timeout_s = float(call.body.get("timeout_s", _DRAIN_S))

        async def left() -> Json:
            return {"left": await self._account.drain(timeout_s)}

        return left()

    def _replay(self, call: Call) -> Json:
        """Sends an event again, with the same id."""
        if not self._account.postman.replay(str(required(call.body, "event_id"))):
            raise Refused("event_id: there is no such event")
        return {"success": True}

    def _deliveries(self) -> Json:
        self._account.postman.collect()
        return {
            "endpoint": asdict(self._account.postman.endpoint),
            "deliveries": [ledger.delivery(each) for each in self._account.postman.parcels],
        }

    def _ledger(self, call: Call) -> Json:
        """All entities, and the sums."""
        return {
            "clock": self._clock(),
            "totals": ledger.money(call.books)["totals"],
            **ledger.entities(call.books),
            **self._deliveries(),
            "calls": list(self._account.calls),
        }


def _authorise(call: Call) -> Json:
    """`{method, outcome, email, contact}`; answers Checkout's three fields."""
    payment = authorisation.authorise(
        call.books,
        call.ids[0],
        chosen_method(call),
        call.now,
        reason=outcome(call),
        email=str(call.body.get("email", "")),
        contact=str(call.body.get("contact", "")),
    )
    if payment.status == "failed":
        return {"error": {"code": payment.error_code, "reason": payment.error_reason, "payment_id": payment.id}}
    return authorisation.checkout(call.books, payment, call.books.subscriptions[call.ids[0]])


def _outcomes(call: Call) -> Json:
    """`{next: ["insufficient_funds", "ok"]}`: outcomes of the next charges."""
    sub = find(call.books.subscriptions, call.ids[0])
    sub.outcomes = [str(each) for each in required(call.body, "next")] if call.body.get("next") else []
    return {"next": sub.outcomes}


def _change_method(call: Call) -> Json:
    return wire.subscription(authorisation.change_method(call.books, call.ids[0], chosen_method(call), call.now))


def _customer(call: Call) -> Json:
    """`{action: pause | resume | revoke}`: in the payer's app."""
    action = required(call.body, "action")
    if action == "pause":
        return wire.subscription(subscriptions.pause(call.books, call.ids[0], call.now, by="customer"))
    if action == "resume":
        return wire.subscription(subscriptions.resume(call.books, call.ids[0], call.now, by="customer"))
    if action == "revoke":
        return wire.subscription(authorisation.revoke(call.books, call.ids[0], call.now))
    raise Refused("action: pause, resume or revoke")


def _pay_invoice(call: Call) -> Json:
    return wire.payment(
        authorisation.pay_invoice(call.books, call.ids[0], chosen_method(call), call.now, reason=outcome(call))
    )


def _pay_link(call: Call) -> Json:
    """`{method, outcome, late}`; answers the payment and the callback's parameters."""
    late = bool(call.body.get("late", False))
    payment = links.pay(call.books, call.ids[0], chosen_method(call), call.now, reason=outcome(call), late=late)
    callback = links.callback(call.books, call.books.links[call.ids[0]], payment)
    return {"payment": wire.payment(payment), "callback": callback if payment.status == "captured" else None}


def _refund(call: Call) -> Any:
    """Refunds in the dashboard."""
    payment = find(call.books.payments, call.ids[0])
    body = {"amount": integer(call.body, "amount")} if call.body.get("amount") is not None else {}
    return wire.refund(refunds.give_back(call.books, payment, body, call.now, by="dashboard"))


def _dispute(call: Call) -> Json:
    return wire.dispute(refunds.open_dispute(call.books, call.ids[0], call.body, call.now))


def _close_dispute(call: Call) -> Json:
    status = str(required(call.body, "status"))
    return wire.dispute(refunds.close_dispute(call.books, call.ids[0], status, call.now))
