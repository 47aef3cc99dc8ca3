"""What outlives the process: subscriptions, pages, money, webhooks on their way, and the time."""

import json
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from sandbox.daemon import free_port
from sandbox.razorpay.account import open_account
from sandbox.razorpay.state import Keeper
from tests.sandbox.razorpay.bench import ROOT, Bench, Receiver, until
from tests.simulated_razorpay import KEY_ID, KEY_SECRET, Razorpay

DAY = 86_400


def bench_of(razorpay: Razorpay) -> Bench:
    return Bench(razorpay.url, KEY_ID, KEY_SECRET)


@pytest.mark.slow
def test_a_subscription_of_yesterday_still_exists(tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "state"
    with Razorpay(port=port, state_file=state) as first:
        bench = bench_of(first)
        sub = bench.subscribe("card_international")
        bench.sdk.subscription.createAddon(sub["id"], {"item": {"name": "x", "amount": 700, "currency": "INR"}})
        first.outcomes(sub["id"], ["insufficient_funds", "paid"])
        link = bench.sdk.payment_link.create({"amount": 500, "currency": "INR", "reference_id": "bill-1"})
        paid = first.pay_link(link["id"])["payment"]["id"]
        refund = {"amount": 200}
        bench.sdk.payment.refund(paid, refund, headers={"X-Refund-Idempotency": "refund-of-bill-1"})
        first.settings(expiry_lag_s=7)
        first.advance(days=3)
        before = first.ledger()
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    with Razorpay(port=port, state_file=state) as second:
        bench, after = bench_of(second), second.ledger()
        for name in set(before) - {"clock", "calls"}:
            assert after[name] == before[name], name
        assert after["clock"]["now"] >= before["clock"]["now"]
        assert second.settings()["expiry_lag_s"] == 7
        again = bench.sdk.payment.refund(paid, refund, headers={"X-Refund-Idempotency": "refund-of-bill-1"})
        assert again["id"] == before["refunds"][0]["id"]
        with urllib.request.urlopen(sub["short_url"], timeout=10) as page:
            assert "The subscription is active." in page.read().decode()
        second.advance(to=sub["current_end"] + DAY)
        back = bench.fetch(sub["id"])
        assert (back["status"], back["paid_count"]) == ("active", 2)
        assert bench.invoices(sub["id"])[0]["amount"] == 353_882 + 700
        assert bench.events(sub["id"])[3:] == ["pending", "charged", "activated"]


@pytest.mark.slow
def test_a_kill_loses_a_second_at_most(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Razorpay(state_file=state) as first:
        sub = bench_of(first).subscribe("upi")
        until(lambda: state.exists() and sub["id"] in state.read_text())
        first.process.send_signal(signal.SIGKILL)
    with Razorpay(state_file=state) as second:
        assert bench_of(second).fetch(sub["id"]) == sub


@pytest.mark.slow
def test_webhooks_on_their_way_arrive_after_the_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Razorpay(state_file=state, webhook_url="http://127.0.0.1:9/") as first:
        first.fault(event="subscription.activated", kind="drop")
        first.fault(event="subscription.paused", kind="drop")
        sub = bench_of(first).subscribe("upi")
        until(lambda: all(each["attempts"] or each["state"] == "dropped" for each in first.deliveries()))
        sent = [each["event_id"] for each in first.deliveries() if each["state"] != "dropped"]
    with Receiver() as receiver, Razorpay(state_file=state, webhook_url=receiver.url) as second:
        second.advance(days=1)
        second.drain()
        bench_of(second).sdk.subscription.pause(sub["id"], {"pause_at": "now"})
        bench_of(second).sdk.subscription.resume(sub["id"], {"resume_at": "now"})
        second.drain()
        got = [head["x-razorpay-event-id"] for head, _ in receiver.got]
        assert sorted(got[:-1]) == sorted(sent)
        assert receiver.names()[-1] == "subscription.resumed"
        states = {each["event"]: each["state"] for each in second.deliveries()}
        assert (states["subscription.activated"], states["subscription.charged"]) == ("dropped", "delivered")


def test_a_start_opens_an_endpoint_that_was_given_up(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Razorpay(state_file=state, webhook_url="http://127.0.0.1:9/") as first:
        bench_of(first).subscribe("upi")
        first.drain()
        first.advance(days=2)
        bench_of(first).subscribe("upi")
        until(lambda: first.sim("GET", "/webhooks")["endpoint"]["enabled"] is False)
    with Receiver() as receiver, Razorpay(state_file=state, webhook_url=receiver.url) as second:
        bench_of(second).subscribe("upi")
        second.drain()
        assert "subscription.charged" in receiver.names()


def test_the_state_never_lies_in_the_future(tmp_path: Path) -> None:
    clock, state = tmp_path / "clock", tmp_path / "state"
    with Razorpay(clock_file=clock, state_file=state) as first:
        first.advance(days=40)
    clock.unlink()
    with Razorpay(clock_file=clock, state_file=state) as second:
        ahead_s = second.sim("GET", "/clock")["offset_ms"] / 1000
        assert 0 <= ahead_s - 40 * DAY < 1
        assert int(clock.read_text()) == int(ahead_s * 1000)


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_kept(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for contents in ("not json", json.dumps({"books": {}})):
        state.write_text(contents)
        command = [sys.executable, "-m", "sandbox.razorpay", "--port", "0", "--state-file", str(state)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert ended.returncode == 2
        assert "move it away to begin anew" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert state.read_text() == contents


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    account = open_account("id", "secret", webhook_url=None, webhook_secret="w", start=None, base_url="")
    keeper = Keeper(account, tmp_path / "state")
    (tmp_path / "state.new").mkdir()
    with caplog.at_level("WARNING", logger="sandbox.razorpay.state"):  # whatever another test made of the root's
        keeper.save()
    assert "cannot save" in caplog.text
    (tmp_path / "state.new").rmdir()
    keeper.save()
    written = (tmp_path / "state").read_bytes()
    (tmp_path / "state").unlink()
    keeper.save()
    assert not (tmp_path / "state").exists()  # there was nothing new
    account.clock.move(account.clock.now() + DAY)
    keeper.save()
    assert (tmp_path / "state").read_bytes() != written
