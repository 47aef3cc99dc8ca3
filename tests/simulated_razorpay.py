"""Razorpay's simulator as a process, with controls of its clock, payers, faults and ledger.

Calls block. A test whose API runs in the test's event loop makes the calls that wait for webhooks
(`drain`, `advance(drain=True)`) in a thread.
"""

import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests import fork_server

KEY_ID, KEY_SECRET, WEBHOOK_SECRET = "rzp_test_abcdefghij0001", "key_secret_of_tests", "whsec_of_tests"
CALL_S = 60
DRAIN_S = 20
STOP_S = 10
FOLLOWED_S = 0.01  # `core.clock` reads every 5 ms
Json = dict[str, Any]


class ControlRefused(Exception):
    """The simulator's refusal: status and message."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


class Razorpay:
    """A simulator on a free port. An outcome is `paid` or a failure reason such as `insufficient_funds`."""

    def __init__(
        self,
        *,
        webhook_url: str | None = None,
        start: int | None = None,
        clock_file: Path | None = None,
        state_file: Path | None = None,
        port: int = 0,
    ) -> None:
        self.clock_file = clock_file
        given = {
            "--port": port,
            "--key-id": KEY_ID,
            "--key-secret": KEY_SECRET,
            "--webhook-secret": WEBHOOK_SECRET,
            "--webhook-url": webhook_url,
            "--start": start,
            "--clock-file": clock_file,
            "--state-file": state_file,
        }
        options = [str(word) for option in given.items() if option[1] is not None for word in option]
        options.append("--with-parent")
        self.process, self.url = fork_server.listening("sandbox.razorpay", *options, stdin=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process, after it saved its state."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        fork_server.stop(self.process)

    @property
    def env(self) -> dict[str, str]:
        """Settings of an API that uses this simulator."""
        followed = {"TEST_CLOCK_FILE": str(self.clock_file)} if self.clock_file is not None else {}
        return {
            "RAZORPAY_KEY_ID": KEY_ID,
            "RAZORPAY_KEY_SECRET": KEY_SECRET,
            "RAZORPAY_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "RAZORPAY_BASE_URL": self.url,
            **followed,
        }

    def sim(self, method: str, path: str, /, **body: Any) -> Any:
        """Calls `/_sim`. Raises ControlRefused."""
        data = None if method == "GET" else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_sim{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=CALL_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ControlRefused(error.code, error.read().decode()) from None

    def reset(self, *, start: int | None = None, webhook_url: str | None = None) -> None:
        """Resets everything; the clock starts at `start` (Unix seconds) or now."""
        self.sim("POST", "/reset", start=start, webhook_url=webhook_url)

    def settings(self, **changed: Any) -> Json:
        """Changes the simulator's behaviour (`sandbox.razorpay.books.Settings`)."""
        return dict(self.sim("POST", "/settings", **changed))

    # ------------------------------------------------------------------------------------------ time

    def now(self) -> int:
        """The simulator's time, Unix seconds."""
        return int(self.sim("GET", "/clock")["now"])

    def advance(self, *, days: float = 0, seconds: float = 0, to: float | None = None, drain: bool = False) -> int:
        """Advances time; with `drain`, each step delivers its webhooks first. Returns the new time.

        Waits until followers of the clock have read it. A request that began before would be past its deadline.
        """
        target = {"to": to} if to is not None else {"days": days, "seconds": seconds}
        now = int(self.sim("POST", "/clock/advance", **target, drain=drain)["now"])
        time.sleep(FOLLOWED_S)
        return now

    def freeze(self, *, frozen: bool = True) -> None:
        """Stops time; refused with a clock file."""
        self.sim("POST", "/clock", frozen=frozen)

    # ------------------------------------------------------------------------------------ the payer

    def authorise(self, subscription_id: str, method: str = "upi", outcome: str = "paid", **payer: str) -> Json:
        """Authorises on a subscription's page; returns Checkout's three fields, or `error`."""
        path = f"/subscriptions/{subscription_id}/authorise"
        return dict(self.sim("POST", path, method=method, outcome=_wire(outcome), **payer))

    def outcomes(self, subscription_id: str, following: list[str]) -> None:
        """Sets the outcomes of the next charges of a subscription."""
        self.sim("POST", f"/subscriptions/{subscription_id}/outcomes", next=[_wire(each) for each in following])

    def change_method(self, subscription_id: str, method: str) -> Json:
        """Changes a subscription's payment method; returns the subscription."""
        return dict(self.sim("POST", f"/subscriptions/{subscription_id}/change_method", method=method))

    def customer(self, subscription_id: str, action: str) -> Json:
        """Pauses, resumes or revokes in the payer's app; returns the subscription."""
        return dict(self.sim("POST", f"/subscriptions/{subscription_id}/customer", action=action))

    def pay_invoice(self, invoice_id: str, method: str = "upi", outcome: str = "paid") -> Json:
        """Pays an open invoice by hand; returns the payment."""
        return dict(self.sim("POST", f"/invoices/{invoice_id}/pay", method=method, outcome=_wire(outcome)))

    def pay_link(self, link_id: str, method: str = "upi", outcome: str = "paid", *, late: bool = False) -> Json:
        """Pays a link, with `late` after it was closed; returns `payment` and the `callback`'s parameters."""
        body = {"method": method, "outcome": _wire(outcome), "late": late}
        return dict(self.sim("POST", f"/payment_links/{link_id}/pay", **body))

    def register(
        self,
        registration_id: str,
        method: str = "upi",
        outcome: str = "paid",
        *,
        answer: str = "confirmed",
        **more: Any,
    ) -> Json:
        """Authorises a mandate; the bank answers `confirmed` or `rejected`. Returns the payment with its `token`."""
        body = {"method": method, "outcome": _wire(outcome), "answer": answer, **more}
        return dict(self.sim("POST", f"/registrations/{registration_id}/authorise", **body))

    def debit_outcomes(self, token_id: str, following: list[str]) -> None:
        """Sets the outcomes of the next tries of a token's debits; `late` fails, and is captured six hours later."""
        self.sim("POST", f"/tokens/{token_id}/outcomes", next=[_wire(each) for each in following])

    def mandate(self, token_id: str, action: str) -> Json:
        """Cancels, pauses or resumes a mandate in the payer's app; returns the token."""
        return dict(self.sim("POST", f"/tokens/{token_id}/customer", action=action))

    def opt_out(self, payment_id: str) -> Json:
        """Declines one debit before it is due; returns the payment."""
        return dict(self.sim("POST", f"/payments/{payment_id}/opt_out"))

    def authorise_late(self, payment_id: str) -> Json:
        """Captures a debit that failed; returns the payment."""
        return dict(self.sim("POST", f"/payments/{payment_id}/authorise_late"))

    def scan(self, qr_code_id: str, amount: int | None = None, outcome: str = "paid", *, late: bool = False) -> Json:
        """Pays a QR code; returns the payment."""
        return dict(self.sim("POST", f"/qr_codes/{qr_code_id}/pay", amount=amount, outcome=_wire(outcome), late=late))

    def debits(self) -> list[Json]:
        """The debits by tokens, oldest first."""
        return list(self.ledger()["debits"])

    # -------------------------------------------------------------------------------- the dashboard

    def refund_payment(self, payment_id: str, amount: int | None = None) -> Json:
        """Refunds paise, or all, in the dashboard; returns the refund."""
        return dict(self.sim("POST", f"/payments/{payment_id}/refund", amount=amount))

    def dispute(self, payment_id: str, amount: int | None = None) -> Json:
        """Opens a dispute; returns it."""
        return dict(self.sim("POST", f"/payments/{payment_id}/dispute", amount=amount))

    def close_dispute(self, dispute_id: str, status: str) -> Json:
        """Ends a dispute as `won`, `lost` or `closed`; returns it."""
        return dict(self.sim("POST", f"/disputes/{dispute_id}/close", status=status))

    # ------------------------------------------------------------------------------------- webhooks

    def set_webhook(self, url: str | None = None, *, secret: str | None = None, enabled: bool | None = None) -> None:
        """Changes the URL of webhooks, their secret (the last one stays as the old one), or disables them."""
        changed = {"url": url, "secret": secret, "enabled": enabled}
        self.sim("POST", "/webhooks", **{name: value for name, value in changed.items() if value is not None})

    def drain(self, *, within_s: float = DRAIN_S) -> None:
        """Waits until every due webhook was delivered, or failed and waits for its retry."""
        left = self.sim("POST", "/webhooks/drain", timeout_s=within_s)["left"]
        assert left == 0, f"{left} webhooks were not brought"

    def deliveries(self, event: str | None = None) -> list[Json]:
        """Events and their deliveries, optionally of one name, oldest first."""
        return [each for each in self.sim("GET", "/webhooks")["deliveries"] if event in (None, each["event"])]

    def replay(self, event_id: str) -> None:
        """Sends an event again, with the same id."""
        self.sim("POST", "/webhooks/replay", event_id=event_id)

    # -------------------------------------------------------------------------- trouble, and the books

    def fault(self, **order: Any) -> None:
        """Orders a fault: `route` and `kind` (`sandbox.razorpay.faults.Fault`), or `event` and `kind`."""
        self.sim("POST", "/faults", **order)

    def clear_faults(self) -> None:
        """Removes all faults."""
        self.sim("DELETE", "/faults")

    def ledger(self) -> Json:
        """All entities, oldest first, with `totals`, `deliveries` and the `calls` of `/v1`."""
        return dict(self.sim("GET", "/ledger"))

    def money(self) -> Json:
        """`totals` (collected, refunded, kept: paise) and the same per payment, with its purpose."""
        return dict(self.sim("GET", "/money"))


def _wire(outcome: str) -> str:
    return "ok" if outcome == "paid" else outcome
