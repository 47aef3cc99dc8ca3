"""A simulator as a process, the SDK pointed at it, and a receiver of webhooks."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.sandbox.razorpay.bench import KEY_ID, KEY_SECRET, ROOT, START, WEBHOOK_SECRET, Bench, Receiver


@pytest.fixture(scope="module")
def process_url() -> Iterator[str]:
    command = [sys.executable, "-m", "sandbox.razorpay", "--port", "0", "--key-id", KEY_ID, "--key-secret", KEY_SECRET]
    command += ["--webhook-secret", WEBHOOK_SECRET, "--start", str(START)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        yield line.removeprefix("listening on ").strip()
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture
def bench(process_url: str) -> Iterator[Bench]:
    bench = Bench(process_url)
    yield bench
    bench.sim("DELETE", "/faults")
    bench.sim("POST", "/webhooks", url=None, enabled=True, timeout_s=5)


@pytest.fixture
def receiver(bench: Bench) -> Iterator[Receiver]:
    with Receiver() as receiver:
        bench.sim("POST", "/webhooks", url=receiver.url, enabled=True)
        yield receiver
        bench.sim("POST", "/webhooks", url=None)
