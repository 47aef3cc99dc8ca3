"""The division of a balance among periods."""

from hypothesis import given
from hypothesis import strategies as st

from billing.wallet.funds import NEAR_MS, PrepaidPeriod, available, funds_to_admit, funds_to_bill

END = 1_000 * NEAR_MS


def period(name: str, *, ends_ms: int = END, price: int = 0, billed: int = 0, **more: object) -> PrepaidPeriod:
    return PrepaidPeriod(name, ends_ms, price, billed, **more)  # type: ignore[arg-type]


def test_the_running_period_has_all_and_the_next_one_nothing() -> None:
    periods = [period("a", price=300), period("b", ends_ms=2 * END)]
    assert funds_to_admit(1_000, periods, 0) == {"a": 1_000, "b": 0}
    assert available(1_000, periods) == 700


def test_shortly_before_the_boundary_each_has_half_of_what_is_left() -> None:
    periods = [period("a", price=300), period("b", ends_ms=2 * END)]
    assert funds_to_admit(1_000, periods, END - NEAR_MS) == {"a": 650, "b": 350}
    assert funds_to_admit(1_000, [period("a", price=400), periods[1]], END + 5) == {"a": 700, "b": 300}


def test_an_ended_period_without_open_requests_leaves_the_rest() -> None:
    periods = [period("a", price=300, is_settled=True), period("b", ends_ms=2 * END)]
    assert funds_to_admit(1_000, periods, END) == {"a": 300, "b": 700}


def test_what_was_drawn_already_is_part_of_the_ceiling() -> None:
    (only,) = funds_to_admit(600, [period("a", price=500, billed=400)], 0).values()
    assert only == 1_000


def test_the_plans_own_ceiling_stays() -> None:
    periods = [period("a", most_paise=200), period("b", ends_ms=2 * END, most_paise=200)]
    assert funds_to_admit(1_000, periods, 0) == {"a": 200, "b": 200}


def test_a_bill_may_take_what_the_other_periods_do_not_owe() -> None:
    periods = [period("a", price=300), period("b", price=200, billed=50)]
    assert funds_to_bill(1_000, periods, "a", 0) == 850
    assert funds_to_bill(1_000, periods, "closed", 100) == 650


PERIODS = st.lists(
    st.builds(
        lambda price, billed, most, settled: (price, billed, most, settled),
        st.integers(0, 500),
        st.integers(0, 300),
        st.none() | st.integers(0, 600),
        st.booleans(),
    ),
    max_size=4,
)


@given(st.integers(-100, 2_000), PERIODS, st.integers(0, 6))
def test_the_periods_never_have_more_than_the_balance_together(
    balance: int, drawn: list[tuple[int, int, int | None, bool]], at: int
) -> None:
    periods = [
        PrepaidPeriod(str(number), (number + 1) * END, price, billed, most, is_settled=settled)
        for number, (price, billed, most, settled) in enumerate(drawn)
    ]
    found = funds_to_admit(balance, periods, at * END)
    assert sum(found[one.name] - one.billed_paise for one in periods) <= max(0, balance)
    assert all(found[one.name] >= one.billed_paise for one in periods)
