"""A simulator as a process, the SDK pointed at it, and a receiver of webhooks."""

from collections.abc import Iterator

import pytest

from tests import fork_server
from tests.sandbox.razorpay.bench import KEY_ID, KEY_SECRET, START, WEBHOOK_SECRET, Bench, Receiver


@pytest.fixture(scope="module")
def process_url() -> Iterator[str]:
    options = ["--key-id", KEY_ID, "--key-secret", KEY_SECRET, "--webhook-secret", WEBHOOK_SECRET]
    process, url = fork_server.listening("sandbox.razorpay", "--port", "0", *options, "--start", str(START))
    yield url
    assert fork_server.stop(process) == 0


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
