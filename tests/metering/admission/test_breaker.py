"""The breaker against a model, for any sequence of failures and successes."""

from hypothesis import given
from hypothesis import strategies as st

from metering.admission.breaker import Breaker, BreakerRules, BreakerState

STEPS = st.lists(
    st.tuples(st.sampled_from([0, 1, 3, 7, 10, 25]), st.sampled_from(["failed", "succeeded"])), max_size=60
)
RULES = st.builds(BreakerRules, st.sampled_from([0.0, 1.0, 2.0]), st.integers(1, 4), st.integers(1, 4))


class Model:
    """Decides from the whole history each time."""

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self.history: list[tuple[float, bool]] = []
        self.is_open = False

    def step(self, at_s: float, *, good: bool) -> BreakerState:
        self.history.append((at_s, good))
        streak = []
        for at, was_good in reversed(self.history):
            if was_good != good:
                break
            streak.append(at)
        if self.is_open:
            if good and len(streak) >= self.rules.probes_to_close:
                self.is_open = False
                self.history.clear()
            return BreakerState.OPEN if self.is_open else BreakerState.CLOSED
        if good:
            return BreakerState.CLOSED
        self.is_open = len(streak) >= self.rules.least_failures and at_s - streak[-1] >= self.rules.dwell_s
        return BreakerState.OPEN if self.is_open else BreakerState.FAILING


@given(rules=RULES, steps=STEPS)
def test_the_breaker_agrees_with_the_model(rules: BreakerRules, steps: list[tuple[int, str]]) -> None:
    breaker, model, at_s = Breaker(rules), Model(rules), 100.0
    for tenths, what in steps:
        at_s += tenths / 8  # exact as a float
        if what == "failed":
            breaker.failed(at_s)
        else:
            breaker.succeeded()
        assert breaker.state is model.step(at_s, good=what == "succeeded")
        assert breaker.is_open == (breaker.state is BreakerState.OPEN)


def test_a_lost_packet_moves_nothing() -> None:
    breaker = Breaker()
    for at_s in range(10):
        breaker.failed(at_s * 5.0)
        assert not breaker.is_open
        breaker.succeeded()
        assert breaker.state is BreakerState.CLOSED


def test_an_outage_opens_it_after_the_dwell_and_three_good_probes_in_a_row_close_it() -> None:
    breaker = Breaker()
    for at_s in (10.0, 10.5, 10.9):
        breaker.failed(at_s)
        assert not breaker.is_open
    breaker.failed(11.0)
    assert breaker.is_open
    for good in (True, True, False, True, True):
        breaker.succeeded() if good else breaker.failed(20.0)
        assert breaker.is_open
    breaker.succeeded()
    assert not breaker.is_open
    breaker.failed(30.0)
    assert breaker.state is BreakerState.FAILING, "the outage before does not count for this one"
