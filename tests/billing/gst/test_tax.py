"""GST: place of supply, components, gross and net, and valid GSTINs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.gst.gstin import STATES, WrongGstin, check_character, checked_gstin
from billing.gst.tax import (
    Component,
    Customer,
    Rates,
    Supply,
    SupplyRefused,
    Treatment,
    gross_of,
    largest_net_of,
    supply_to,
    tax_on,
)

MAHARASHTRA, KARNATAKA, CHANDIGARH = "27", "29", "04"
REAL = "27AAPFU0939F1ZV"
AMOUNTS = st.integers(0, 10**12)
INTRA = supply_to(Customer("IN", MAHARASHTRA, REAL), supplier_state=MAHARASHTRA, has_lut=False)
INTER = supply_to(Customer("IN", KARNATAKA), supplier_state=MAHARASHTRA, has_lut=False)
EXPORT = supply_to(Customer("US"), supplier_state=MAHARASHTRA, has_lut=True)
SUPPLIES = st.sampled_from(
    [INTRA, INTER, EXPORT, supply_to(Customer("IN", "27"), supplier_state="27", has_lut=True, rates=Rates(1, 3_333, 0))]
)


def test_where_the_supply_is() -> None:
    """The supplier's state, another state, abroad; registered or not."""
    assert (INTRA.treatment, INTRA.place_name) == (Treatment.INTRA_STATE, "Maharashtra")
    assert (INTER.treatment, INTER.place_name) == (Treatment.INTER_STATE, "Karnataka")
    assert (EXPORT.treatment, EXPORT.place, EXPORT.place_name) == (Treatment.EXPORT, "96", "Outside India")
    union = supply_to(Customer("IN", CHANDIGARH), supplier_state=CHANDIGARH, has_lut=False)
    assert union.components == ((Component.CGST, 900), (Component.UTGST, 900))


def test_each_component_is_rounded_once_half_up() -> None:
    """9 % of 50 is 4.5: each half is 5, and the whole of 18 % is 9."""
    assert [(line.component, line.tax_paise) for line in tax_on(50, INTRA)] == [
        (Component.CGST, 5),
        (Component.SGST, 5),
    ]
    assert [(line.component, line.tax_paise) for line in tax_on(50, INTER)] == [(Component.IGST, 9)]
    assert tax_on(10**9, EXPORT) == ()
    assert (gross_of(50, INTRA), gross_of(50, INTER), gross_of(50, EXPORT)) == (60, 59, 50)


@pytest.mark.parametrize(
    ("customer", "supplier_state", "has"),
    [
        (Customer("US"), MAHARASHTRA, "nothing"),
        (Customer("US", gstin=REAL), MAHARASHTRA, "LUT"),
        (Customer("US", state=KARNATAKA), MAHARASHTRA, "LUT"),
        (Customer("IN"), MAHARASHTRA, "LUT"),
        (Customer("IN", "28"), MAHARASHTRA, "LUT"),
        (Customer("IN", KARNATAKA, REAL), MAHARASHTRA, "LUT"),
        (Customer("IN", KARNATAKA), "00", "LUT"),
    ],
)
def test_refused(customer: Customer, supplier_state: str, has: str) -> None:
    """Supplies that would give a wrong invoice."""
    with pytest.raises(SupplyRefused):
        supply_to(customer, supplier_state=supplier_state, has_lut=has == "LUT")


@pytest.mark.parametrize("bad", ["gross", "rate"])
def test_negative(bad: str) -> None:
    """No gross and no rate is negative."""
    with pytest.raises(ValueError, match="must not be negative"):
        largest_net_of(-1, INTRA) if bad == "gross" else Rates(igst_bp=-1)


@given(AMOUNTS, SUPPLIES)
def test_the_largest_net(amount_paise: int, where: Supply) -> None:
    """One paisa more is too much, and a net is found again from its gross."""
    net_paise = largest_net_of(amount_paise, where)
    assert gross_of(net_paise, where) <= amount_paise < gross_of(net_paise + 1, where)
    assert largest_net_of(gross_of(amount_paise, where), where) == amount_paise


@given(AMOUNTS, SUPPLIES)
def test_a_credit_note_takes_back_the_same_tax(amount_paise: int, where: Supply) -> None:
    """Each component is within half a paisa of its exact value."""
    assert gross_of(-amount_paise, where) == -gross_of(amount_paise, where)
    for line in tax_on(amount_paise, where):
        assert -5_000 < line.tax_paise * 10_000 - amount_paise * line.rate_bp <= 5_000


def test_a_real_gstin() -> None:
    """From public documents; blanks around and small letters are accepted."""
    assert checked_gstin(" 27aapfu0939f1zv ") == REAL


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("27AAPFU0939F1ZW", "check it for a typo"),
        ("27AAPFU0993F1ZV", "check it for a typo"),
        ("28AAPFU0939F1Z" + check_character("28AAPFU0939F1Z"), "no state"),
        ("27AAPFU0939F1YV", "a GSTIN is"),
        ("27AAPFU0939F0ZV", "a GSTIN is"),
        ("27AAPFU0939F1Z", "a GSTIN is"),
        ("२७AAPFU0939F1ZV", "a GSTIN is"),
        ("", "a GSTIN is"),
    ],
)
def test_a_wrong_gstin(written: str, why: str) -> None:
    """Each message names the mistake."""
    with pytest.raises(WrongGstin, match=why):
        checked_gstin(written)


@given(st.sampled_from(sorted(STATES)), st.from_regex(r"[A-Z]{5}[0-9]{4}[A-Z][1-9A-Z]Z", fullmatch=True), st.data())
def test_every_single_mistype_is_found(state: str, rest: str, data: st.DataObject) -> None:
    """A single wrong character is refused."""
    gstin = state + rest + check_character(state + rest)
    assert checked_gstin(gstin) == gstin
    position = data.draw(st.integers(0, 14))
    other = data.draw(st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ").filter(lambda c: c != gstin[position]))
    with pytest.raises(WrongGstin):
        checked_gstin(gstin[:position] + other + gstin[position + 1 :])
