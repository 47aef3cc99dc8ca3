"""`naka up` for a newcomer: it answers, keeps its data, stops cleanly, and reports errors in one line."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from razorpay import Client

from core.settings import SANDBOX_RAZORPAY_KEY_ID, SANDBOX_RAZORPAY_KEY_SECRET, SANDBOX_RAZORPAY_WEBHOOK_SECRET
from sandbox.daemon import free_port
from sandbox.laptop import laptop
from tests.answers import parse_sse
from tests.harness import ROOT
from tests.journeys.shop import DAY_S, post_form
from tests.pages.provider import target_of

START_S = 180
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(
        ("DATABASE_", "REDIS_", "ANTHROPIC_", "RAZORPAY_", "TEST_CLOCK_", "PYTEST", "NAKA_", "OIDC_", "PUBLIC_URL")
    )
}


class Up:
    """`naka up` in a folder."""

    def __init__(self, home: Path, port: int, *options: str, **configured: str) -> None:
        self.home = home
        self.log = home.parent / "up.log"
        self.url = f"http://127.0.0.1:{port}"
        self._worker_log = home / "worker.log"
        self._said_before = len(self._worker_log.read_text()) if self._worker_log.exists() else 0
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.cli", "up", "--port", str(port), "--home", str(home), *options],
                cwd=ROOT,
                env=CLEAN | configured,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def await_banner(self) -> dict[str, Any]:
        """Returns `demo.json` once everything is up."""
        deadline = time.monotonic() + START_S
        while "Ctrl-C" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        demo: dict[str, Any] = json.loads((self.home / "demo.json").read_text())
        return demo

    def worker_log(self) -> str:
        """Returns the worker's log of this start."""
        return self._worker_log.read_text()[self._said_before :]

    def await_worker(self) -> psutil.Process:
        """Returns the worker's process once its log says that it is ready."""
        deadline = time.monotonic() + START_S
        while "queue_ready" not in self.worker_log():
            assert time.monotonic() < deadline, self.worker_log()
            time.sleep(0.05)
        (worker,) = [
            child for child in psutil.Process(self.process.pid).children() if child.cmdline()[3:4] == ["worker"]
        ]
        return worker

    def get(self, path: str, key: str) -> Any:
        """Returns the JSON of a route."""
        request = urllib.request.Request(self.url + path, headers={"x-api-key": key})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def up(home: Path, port: int, *options: str, **configured: str) -> Iterator[Up]:
    started = Up(home, port, *options, **configured)
    try:
        yield started
    finally:
        started.process.terminate()
        started.process.wait(60)


def _razorpay_is_simulated(demo: dict[str, str], home: Path) -> dict[str, Any]:
    """Creates a subscription, and a payment link that must survive a restart."""
    assert demo["webhook_secret"] == SANDBOX_RAZORPAY_WEBHOOK_SECRET
    kept = dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())
    assert kept["RAZORPAY_BASE_URL"] == demo["razorpay_url"]
    assert "//naka_service:" in kept["DATABASE_URL"], "the application is not the owner of the schema"
    assert "//naka:" in kept["DATABASE_MIGRATION_URL"]
    assert kept["TEST_CLOCK_FILE"] == str(home / "clock")
    assert (home / "clock").read_text() == "0"
    assert _sim(demo, "webhooks")["endpoint"]["url"] == f"{demo['url']}/webhooks/razorpay"
    _subscribe(demo)
    link = _sdk(demo).payment_link.create({"amount": 500, "currency": "INR", "reference_id": "up"})
    assert link["short_url"].startswith(demo["razorpay_url"])
    return dict(link)


async def _somebody_signs_in(url: str) -> None:
    """The demo's owner, at the simulated identity provider."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as browser:
        ours = {"sec-fetch-site": "same-origin"}
        page = await browser.post(f"{url}/sign-in/oidc", data={"next": "/account/members"}, headers=ours)
        chosen = await browser.post(target_of(page), data={"person": "grace@demo.example"})
        back = await browser.get(chosen.headers["location"])
        assert target_of(back) == "/account/members"
        members = await browser.get(f"{url}/account/members")
        assert "alan@demo.example" in members.text
        assert "Create invitation" in members.text


def _sdk(demo: dict[str, str]) -> Any:
    return Client(auth=(SANDBOX_RAZORPAY_KEY_ID, SANDBOX_RAZORPAY_KEY_SECRET), base_url=demo["razorpay_url"])


def _subscribe(demo: dict[str, str]) -> None:
    """Subscribes on the page behind `pay_url`; webhook, worker and bill follow."""
    waiting = _billing(demo, "subscription", b'{"plan": "starter"}')["waiting"]
    assert "paid" in post_form(waiting["pay_url"], method="upi", outcome="ok")
    deadline = time.monotonic() + 30
    while not (current := _billing(demo, "subscription")["current"]):
        assert time.monotonic() < deadline, "nobody noticed"
        time.sleep(0.1)
    assert (current["plan"], current["status"]) == ("starter", "active")
    (bill,) = _billing(demo, "bills")["items"]
    assert (bill["kind"], bill["state"], bill["total_paise"]) == ("base", "paid", 117_882)


def _billing(demo: dict[str, str], what: str, body: bytes | None = None) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {demo['tenant_admin_key']}", "content-type": "application/json"}
    request = urllib.request.Request(f"{demo['url']}/v1/billing/{what}", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def test_what_is_configured_is_not_simulated(tmp_path: Path) -> None:
    configured = {
        "DATABASE_URL": "postgresql://somewhere/naka",
        "REDIS_URL": "redis://somewhere",
        "ANTHROPIC_API_KEY": "sk-ant",
        "ANTHROPIC_BASE_URL": "https://api.anthropic.com",
        "RAZORPAY_KEY_ID": "rzp_test_0123456789abcd",
        "RAZORPAY_BASE_URL": "https://api.razorpay.com",
        "OIDC_ISSUER": "https://login.example",
    }
    url = "http://127.0.0.1:1"
    with laptop(tmp_path, configured, anthropic_key="k", api_url=url, tell=lambda _: None) as running:
        assert (running.environment, running.children) == ({}, {})
        assert {part.name: part.real for part in running.parts}["Razorpay"]
        assert all(part.real for part in running.parts)
    assert list(tmp_path.iterdir()) == [], "no clock, no log"


@pytest.mark.slow
@pytest.mark.chaos
def test_first_start_second_start_and_a_start_after_a_kill(private_home: Callable[[], Path]) -> None:
    home, port = private_home() / "naka", free_port()
    nobody = f"http://127.0.0.1:{free_port()}"  # a proxy of the environment never stands before this machine
    with up(home, port, "--empty", http_proxy=nobody, https_proxy=nobody) as first:
        demo = first.await_banner()
        assert demo["url"] == first.url
        words = first.log.read_text()
        assert re.search(r"Postgres +real", words)
        assert re.search(r"Valkey +real", words)
        assert re.search(r"Anthropic +simulated", words)
        assert re.search(rf"Razorpay +simulated +{re.escape(demo['razorpay_url'])}", words)
        assert f"Background duties: naka worker   (log: {home / 'worker.log'})" in words
        first.await_worker()
        (command,) = re.findall(r"^ +(curl -N .*)$", words, re.MULTILINE)
        streamed = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=60).stdout
        assert parse_sse(streamed)[-1] == ("done", "")
        assert re.search(r"Sign-in +simulated", words)
        asyncio.run(_somebody_signs_in(demo["url"]))
        link = _razorpay_is_simulated(demo, home)
        taken = _fails("--port", str(port), "--home", str(home / "other"))
        assert taken == f"naka up: port {port} is in use: stop its process, or use --port"
        in_use = _fails("--port", str(free_port()), "--home", str(home))
        assert re.fullmatch(r"naka up: .*/postgres is in use by process \d+: stop that one first", in_use)
        used = first.get("/v1/usage", demo["chat_key"])["totals"]
        served = _ledger(demo["anthropic_url"])
        assert used["requests"] == len(served) == 1
        assert used["input_tokens"] == served[0]["input_tokens"]
        assert used["output_tokens"] == served[0]["output_tokens"]
        children = psutil.Process(first.process.pid).children(recursive=True)
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(60) == 0
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        assert "worker_stopped" in first.worker_log().splitlines()[-1]
    for file in ("demo.json", "env"):
        assert (home / file).stat().st_mode & 0o077 == 0

    with up(home, port) as second:
        assert second.await_banner() == demo | {"anthropic_url": second.await_banner()["anthropic_url"]}
        assert second.get("/v1/usage", demo["chat_key"])["totals"] == used
        assert _sdk(demo).payment_link.fetch(link["id"]) == link, "Razorpay's simulator remembers, at the same place"
        worker = second.await_worker()
        second.process.kill()
        second.process.wait(10)
        worker.wait(10)

    with up(home, port) as third:
        third.await_banner()
        assert third.get("/v1/usage", demo["chat_key"])["totals"] == used
        third.await_worker().kill()
        assert third.process.wait(60) == 1
        assert "naka up: the worker stopped unexpectedly: see the logs in" in " ".join(third.log.read_text().split())


@pytest.mark.slow
@pytest.mark.chaos
def test_a_new_home_has_a_month_behind_it(private_home: Callable[[], Path]) -> None:
    """Rows, sums, bills and both simulators' ledgers agree, at once and after a restart; every link signs in once."""
    home, port = private_home() / "naka", free_port()
    with up(home, port) as first:
        demo = first.await_banner()
        words = first.log.read_text()
        (answered,) = map(int, re.findall(r"(\d+) requests answered", words))
        assert answered > 400
        served = [row for row in _ledger(demo["anthropic_url"]) if row["kind"] == "messages"]
        assert len(served) == answered
        assert served[0]["started_ms"] < (time.time() - 32 * DAY_S) * 1000
        assert (home / "clock").read_text() == "0"
        _agrees(home)
        bills = _billing(demo, "bills")["items"]
        kinds = sorted((bill["kind"], bill["state"]) for bill in bills)
        assert kinds == [("base", "paid"), ("base", "paid"), ("overage", "open")]
        (due,) = [bill for bill in bills if bill["due_paise"] > 0]
        assert due["pay_url"].startswith(demo["razorpay_url"])
        assert due["due_at"] > bills[0]["issued_at"]
        _shows_each_kind_of_customer(demo)
        links = dict(re.findall(r"^  (Tenant admin|User|Operator) +(http://\S+)$", words, re.MULTILINE))
        for role, page in {"Tenant admin": "/account", "User": "/", "Operator": "/operator"}.items():
            assert _opened(links[role]).endswith(page)
            assert "used already" in _refused(links[role])
    with up(home, port) as second:
        second.await_banner()
        assert "requests answered" not in second.log.read_text(), "once"
        _agrees(home)


def _shows_each_kind_of_customer(demo: dict[str, Any]) -> None:
    """One pays by mandate, one in advance, and one is overdue."""
    tenants = {one["slug"]: one["id"] for one in _admin(demo, "tenants")["items"]}
    (mandate,) = _admin(demo, "mandates")["items"]
    assert (mandate["tenant_id"], mandate["state"]) == (tenants["zenith"], "active")
    debits = [one for one in _admin(demo, "charges")["items"] if one["instrument"] == "mandate"]
    assert [(one["tenant_id"], one["state"]) for one in debits] == [(tenants["zenith"], "paid")]
    wallet = _admin(demo, f"tenants/{tenants['nimbus']}/wallet")
    assert wallet["is_prepaid"]
    assert 0 < wallet["unused_paise"] < 200_000
    (top_up,) = [one for one in _admin(demo, "charges")["items"] if one["instrument"] == "qr_code"]
    assert (top_up["tenant_id"], top_up["state"]) == (tenants["nimbus"], "paid")
    states = {slug: _admin(demo, f"tenants/{tenants[slug]}/status")["state"] for slug in ("zenith", "nimbus", "orbit")}
    assert states == {"zenith": "active", "nimbus": "active", "orbit": "overdue"}


def _admin(demo: dict[str, Any], what: str) -> dict[str, Any]:
    """Asks as the operator."""
    headers = {"authorization": f"Bearer {demo['platform_admin_key']}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{demo['url']}/v1/admin/{what}", None, headers), timeout=30
    ) as answer:
        return dict(json.load(answer))


def _agrees(home: Path) -> None:
    """`naka reconcile` finds no drift, and no difference from either provider."""
    environment = CLEAN | dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())
    for what in ([], ["razorpay"]):
        ended = subprocess.run(
            [sys.executable, "-m", "api.cli", "reconcile", *what, "--json"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        found = json.loads(ended.stdout)
        if not what:
            assert found["provider"]
            assert [row for row in found["provider"] if row["difference"]] == []


def _opened(link: str) -> str:
    """Returns the address of the page behind a link, which is shown to a browser that keeps its cookies."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(link, timeout=30) as answer:
        return str(answer.geturl())


def _refused(link: str) -> str:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(link, timeout=30)
    assert refused.value.code == 401
    return refused.value.read().decode()


@pytest.mark.slow
def test_a_clock_that_a_killed_start_left_in_the_past_is_set_to_the_present(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("-86400000")
    configured = {
        "DATABASE_URL": "postgresql://somewhere/naka",
        "REDIS_URL": "redis://somewhere",
        "ANTHROPIC_API_KEY": "k",
    }
    configured["ANTHROPIC_BASE_URL"] = "https://api.anthropic.com"
    with laptop(tmp_path, configured, anthropic_key="k", api_url="http://127.0.0.1:1", tell=lambda _: None):
        assert (tmp_path / "clock").read_text() == "0"


def _fails(*options: str) -> str:
    """Returns the last line of a failed start."""
    command = [sys.executable, "-m", "api.cli", "up", *options]
    ended = subprocess.run(command, cwd=ROOT, env=CLEAN, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return " ".join(ended.stderr[ended.stderr.index("naka up:") :].split())


def _sim(demo: dict[str, Any], path: str) -> Any:
    with urllib.request.urlopen(f"{demo['razorpay_url']}/_sim/{path}", timeout=30) as answer:
        return json.load(answer)


def _ledger(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/_sim/ledger", timeout=30) as answer:
        items: list[dict[str, Any]] = json.load(answer)["items"]
        return items
