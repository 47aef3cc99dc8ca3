"""Rate limits: a burst, then the average rate; owners are independent, and forgotten when idle."""

from types import SimpleNamespace

import pytest

from core.resilience.rates import Rate, RateLimited


def test_a_burst_then_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("core.resilience.rates.time", SimpleNamespace(monotonic=lambda: clock[0]))
    rate = Rate(60)
    for _ in range(10):
        rate.spend("key")
    with pytest.raises(RateLimited) as limited:
        rate.spend("key")
    assert limited.value.retry_after_s == 1
    rate.spend("another key")
    clock[0] += 1
    rate.spend("key")
    with pytest.raises(RateLimited):
        rate.spend("key")


def test_owners_whose_bucket_is_full_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("core.resilience.rates.time", SimpleNamespace(monotonic=lambda: clock[0]))
    rate = Rate(600)
    for number in range(10_000):
        rate.spend(number)
        clock[0] += 0.05
    assert len(rate) < 1100


def test_zero_is_no_bound() -> None:
    rate = Rate(0)
    for _ in range(10_000):
        rate.spend("key")
    assert len(rate) == 0
