"""The file that others take their time from: there before anything happens at the new time, and gone on from."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sandbox.razorpay.clock import Clock
from tests.sandbox.razorpay.bench import ROOT, Bench, EndpointServer, until
from tests.simulated_razorpay import KEY_ID, KEY_SECRET, ControlRefused, Razorpay

DAY = 86_400
SLACK_S = 5  # of a machine under load


class Follower:
    """An endpoint that notes what time it is by the file when an event comes."""

    def __init__(self, file: Path) -> None:
        self.seen: list[tuple[str, int, float]] = []
        """Event, its moment, and the time by the file."""
        follower = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                follower.seen.append((event["event"], event["created_at"], time.time() + int(file.read_text()) / 1000))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = EndpointServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def months(self) -> list[tuple[int, float]]:
        """Moment and time by the file of each charge."""
        return [(at, seen) for name, at, seen in self.seen if name == "subscription.charged"]


@pytest.fixture
def follower(razorpay: Razorpay) -> Iterator[Follower]:
    assert razorpay.clock_file is not None
    follower = Follower(razorpay.clock_file)
    threading.Thread(target=follower.server.serve_forever, args=(0.02,), daemon=True).start()
    razorpay.set_webhook(follower.url)
    yield follower
    follower.server.shutdown()
    follower.server.server_close()


def bench_of(razorpay: Razorpay) -> Bench:
    return Bench(razorpay.url, KEY_ID, KEY_SECRET)


def shown(file: Path | None) -> float:
    """The time by the file."""
    assert file is not None
    return time.time() + int(file.read_text()) / 1000


def test_no_webhook_comes_before_its_time_by_the_file(razorpay: Razorpay, follower: Follower) -> None:
    bench = bench_of(razorpay)
    sub = bench.subscribe("upi")
    razorpay.advance(to=sub["current_end"])
    assert shown(razorpay.clock_file) >= sub["current_end"]
    razorpay.advance(days=100)
    assert abs(shown(razorpay.clock_file) - razorpay.now()) < SLACK_S
    razorpay.drain()
    assert len(follower.months()) == 5
    assert all(seen >= at for _, at, seen in follower.seen)


def test_with_drain_each_webhook_comes_at_its_time(razorpay: Razorpay, follower: Follower) -> None:
    sub = bench_of(razorpay).subscribe("upi")
    razorpay.outcomes(sub["id"], ["paid", "insufficient_funds", "paid"])
    razorpay.advance(days=100, drain=True)
    names = [name for name, _, _ in follower.seen if name in ("subscription.charged", "subscription.pending")]
    assert [name.partition(".")[2] for name in names] == ["charged", "charged", "pending", "charged", "charged"]
    for name, at, seen in follower.seen:
        assert 0 <= seen - at < SLACK_S, name


def test_a_reset_waits_for_the_move_that_is_under_way(razorpay: Razorpay, follower: Follower) -> None:
    bench_of(razorpay).subscribe("upi")
    move = threading.Thread(target=razorpay.advance, kwargs={"days": 300, "drain": True})
    move.start()
    until(lambda: len(follower.months()) > 1)
    razorpay.reset()
    move.join()
    assert len(follower.months()) == 10
    assert abs(razorpay.now() - time.time()) < SLACK_S


def test_now_is_no_way_back_and_yesterday_is(razorpay: Razorpay) -> None:
    razorpay.advance(to=razorpay.now())
    razorpay.advance(days=0)
    with pytest.raises(ControlRefused, match="the clock cannot go back"):
        razorpay.advance(to=razorpay.now() - DAY)


def test_a_followed_clock_cannot_be_stopped(razorpay: Razorpay) -> None:
    with pytest.raises(ControlRefused, match="cannot be frozen"):
        razorpay.freeze()
    razorpay.freeze(frozen=False)


def test_a_start_goes_on_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    with Razorpay(clock_file=file, start=int(time.time()) + 10 * DAY) as first:
        assert abs(shown(file) - time.time() - 10 * DAY) < SLACK_S
        first.advance(days=20)
        offset_ms = int(file.read_text())
        assert abs(offset_ms / 1000 - 30 * DAY) < SLACK_S
    with Razorpay(clock_file=file, start=5) as second:
        assert int(file.read_text()) == offset_ms
        assert abs(second.now() - shown(file)) < SLACK_S
    assert [each.name for each in tmp_path.iterdir()] == ["clock"]


def test_without_a_start_it_says_nought(tmp_path: Path) -> None:
    Clock(file=tmp_path / "clock")
    assert (tmp_path / "clock").read_text() == "0"


@pytest.mark.slow
def test_a_move_arrives(tmp_path: Path) -> None:
    clock = Clock(file=tmp_path / "clock")
    for to in range(int(clock.now()) + 1, int(clock.now()) + 2000):
        clock.move(to)
        assert int(clock.now()) >= to


def test_a_clock_that_was_stopped_goes_on_from_there() -> None:
    clock = Clock(1000)
    clock.freeze(frozen=True)
    stood = clock.now()
    clock.move(2000)
    assert stood < 1001
    assert clock.now() == 2000
    clock.freeze(frozen=False)
    assert 2000 <= clock.now() < 2000 + SLACK_S
    offset_ms = clock.offset_ms
    clock.freeze(frozen=False)
    assert clock.offset_ms == offset_ms


def test_a_file_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("tomorrow")
    command = [sys.executable, "-m", "sandbox.razorpay", "--port", "0", "--clock-file", str(tmp_path / "clock")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "clock: no number of milliseconds" in ended.stderr
    assert "Traceback" not in ended.stderr
