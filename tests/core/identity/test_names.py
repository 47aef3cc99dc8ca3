"""The names of users that requests send."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from core.identity.end_users import MAX_NAME_LENGTH, normal_name


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("ada", "ada"),
        ("  ada@acme.example\t", "ada@acme.example"),
        ("Andre\u0301", "Andr\u00e9"),
        ("Ada  L", "Ada  L"),
        ("नमस्ते", "नमस्ते"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("x" * MAX_NAME_LENGTH, "x" * MAX_NAME_LENGTH),
        ("e\u0301" * MAX_NAME_LENGTH, "\u00e9" * MAX_NAME_LENGTH),
    ],
)
def test_a_name_is_trimmed_and_composed(sent: str, name: str) -> None:
    assert normal_name(sent) == name


@pytest.mark.parametrize(
    "sent",
    [
        *("", "   ", "a\nb", "a\x00", "a\x85b", "a\u2028b", "a\ud800", "a\uffff"),
        *("x" * (MAX_NAME_LENGTH + 1), " " * 10_000 + "ada", "\ufdfa\x7f"),
    ],
)
def test_what_is_no_name_is_refused_without_being_repeated(sent: str) -> None:
    with pytest.raises(Invalid) as refused:
        normal_name(sent)
    assert not sent.strip() or sent.strip() not in str(refused.value)


@given(st.text(max_size=300))
def test_a_normal_name_stays_as_it_is(sent: str) -> None:
    try:
        name = normal_name(sent)
    except Invalid:
        return
    assert normal_name(name) == name == unicodedata.normalize("NFC", name).strip()
    assert 0 < len(name) <= MAX_NAME_LENGTH
    name.encode()
