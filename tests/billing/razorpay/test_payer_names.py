"""The payer's name in Razorpay's form; the bill keeps the legal name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.razorpay.payer_names import payer, payer_name
from sandbox.razorpay import links
from sandbox.razorpay.refusals import Refused


@pytest.mark.parametrize(
    ("legal", "plain"),
    [
        ("Nimbus Tools", "Nimbus Tools"),
        ("Société Générale & Söhne, [India] Pvt. Ltd.", "Societe Generale and Sohne India Pvt. Ltd."),
        ("O\u2019Brien (Mumbai) / \u0928\u093f\u092e\u094d\u092c\u0938 @ Ltd", "O'Brien (Mumbai) / @ Ltd"),
        ("\u092d\u093e\u0930\u0924 \u092a\u094d\u0930\u093e\u0907\u0935\u0947\u091f", None),
        ("x", None),
        ("...", None),
        ("A" * 80, "A" * 50),
    ],
)
def test_a_name_is_simplified_or_left_out(legal: str, plain: str | None) -> None:
    assert payer_name(legal) == plain
    assert payer({"legal_name": legal, "email": "a@b.example"}) == (
        {"email": "a@b.example"} if plain is None else {"name": plain, "email": "a@b.example"}
    )


@given(st.text(max_size=120))
def test_whatever_a_name_is_razorpay_takes_the_payer(legal: str) -> None:
    name = payer_name(legal)
    assert name is None or re.fullmatch(r"[A-Za-z0-9.'/@() ]{3,50}", name)
    links._check_payer({"customer": payer({"legal_name": legal})})


def test_the_simulator_is_as_strict_as_the_documentation() -> None:
    for name in ("ab", "A & B", "Soci\u00e9t\u00e9", "x" * 51):
        with pytest.raises(Refused):
            links._check_payer({"customer": {"name": name}})
