"""What the tests hold in their hands: the SDK, the simulator's controls, and an endpoint for webhooks."""

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import razorpay

ROOT = Path(__file__).resolve().parents[3]
KEY_ID, KEY_SECRET, WEBHOOK_SECRET = "rzp_test_abcdefghij0001", "key_secret_local", "whsec_local_dev"
START = 1793858480  # 2026-11-05 11:31:20 IST, as in the documented example
CYCLE_2 = 1796409000  # 2026-12-05 00:00 IST
CYCLE_3 = 1799087400
DAY = 86_400
Json = dict[str, Any]


class Bench:
    """One simulator and the SDK on it."""

    def __init__(self, url: str, key_id: str = KEY_ID, key_secret: str = KEY_SECRET) -> None:
        self.url = url
        self.sdk = razorpay.Client(auth=(key_id, key_secret), base_url=url)

    def sim(self, method: str, path: str, /, **body: Any) -> Any:
        """A call of `/_sim`; raises urllib's HTTPError."""
        data = None if method == "GET" else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_sim{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def post_form(self, url: str, **fields: str) -> tuple[int, str, str]:
        """Clicks a page's button: status, text and where it led, redirects not followed."""
        data = urllib.parse.urlencode(fields).encode()
        opener = urllib.request.build_opener(_Stay)
        try:
            with opener.open(url, data, timeout=10) as answer:
                return answer.status, answer.read().decode(), ""
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers.get("Location") or ""

    def now(self) -> int:
        now: int = self.sim("GET", "/clock")["now"]
        return now

    def advance(self, **by: int) -> None:
        self.sim("POST", "/clock/advance", **by)

    def plan(self, amount: int = 353_882) -> Json:
        item = {"name": "Team", "amount": amount, "currency": "INR"}
        plan: Json = self.sdk.plan.create({"period": "monthly", "interval": 1, "item": item})
        return plan

    def subscribe(self, method: str, *, amount: int = 353_882, count: int = 12, **more: Any) -> Json:
        """An authorised subscription, as fetched."""
        body = {"plan_id": self.plan(amount)["id"], "total_count": count, **more}
        sub = self.sdk.subscription.create(body)
        self.sim("POST", f"/subscriptions/{sub['id']}/authorise", method=method)
        return self.fetch(sub["id"])

    def fetch(self, key: str) -> Json:
        sub: Json = self.sdk.subscription.fetch(key)
        return sub

    def invoices(self, key: str) -> list[Json]:
        items: list[Json] = self.sdk.invoice.all({"subscription_id": key, "count": 100})["items"]
        return items

    def events(self, key: str) -> list[str]:
        """The names of this subscription's own events, in the order they happened."""
        found = []
        for each in self.sim("GET", "/webhooks")["deliveries"]:
            payload = json.loads(each["body"])["payload"]
            if payload.get("subscription", {}).get("entity", {}).get("id") == key:
                found.append(each["event"].removeprefix("subscription."))
        return found


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class EndpointServer(ThreadingHTTPServer):
    """Takes all connections that come at once: one more than the queue holds would be a second late."""

    request_queue_size = 64


class Receiver:
    """An endpoint that keeps what it gets, and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        """The next answers; 200 once they are used up. 0: no answer within the simulator's time-out."""
        self.late_s = 0.0
        """How long a delivery is under way before it is noted."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(receiver.late_s)
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                if status == 0:
                    time.sleep(1)
                self.send_response(status or 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = EndpointServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhooks/razorpay"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def names(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.got]

    def ids(self, name: str) -> list[str]:
        return [head["x-razorpay-event-id"] for head, body in self.got if json.loads(body)["event"] == name]


def until(true: Callable[[], bool], timeout_s: float = 10) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
