"""The order in which a wallet is used, and given back to."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from billing.wallet.draw import Lot, draw, give_back, total_of

LOTS = st.lists(
    st.builds(
        lambda number, money, left, expires: Lot(UUID(int=number), money, left, left, None if money else expires),
        st.integers(1, 1 << 60),
        st.booleans(),
        st.integers(0, 1_000),
        st.none() | st.integers(0, 9),
    ),
    max_size=6,
    unique_by=lambda lot: lot.id,
)


def lot(number: int, left: int, *, money: bool = False, expires_ms: int | None = None) -> Lot:
    return Lot(UUID(int=number), money, left, left, expires_ms)


def test_what_expires_first_is_used_first_and_a_gift_before_money() -> None:
    lots = [lot(1, 100, money=True), lot(2, 100), lot(3, 100, expires_ms=9), lot(4, 100, expires_ms=5)]
    assert [(part.lot.id.int, part.paise) for part in draw(lots, 350)] == [(4, 100), (3, 100), (2, 100), (1, 50)]


def test_money_comes_back_before_a_gift() -> None:
    drawn = draw([lot(1, 100, money=True), lot(2, 100, expires_ms=5)], 150)
    assert [(part.lot.id.int, part.paise) for part in give_back(drawn, 70)] == [(1, 50), (2, 20)]


@given(LOTS, st.integers(0, 5_000))
def test_no_lot_gives_more_than_it_has(lots: list[Lot], paise: int) -> None:
    parts = draw(lots, paise)
    assert total_of(parts) == min(paise, sum(one.left_paise for one in lots))
    assert all(0 < part.paise <= part.lot.left_paise for part in parts)
    assert total_of(parts, money=True) + total_of(parts, money=False) == total_of(parts)
    assert total_of(give_back(parts, paise)) == total_of(parts)
