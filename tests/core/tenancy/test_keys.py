"""The format of a key: random, checksummed, hashed."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.tenancy.keys import KEY_LENGTH, generate_key, hash_key, is_well_formed


@pytest.mark.parametrize(("live", "prefix"), [(True, "nk_live_"), (False, "nk_test_")])
def test_a_key_is_well_formed_and_says_where_it_belongs(prefix: str, *, live: bool) -> None:
    made = generate_key(live=live)
    assert made.plaintext.startswith(prefix)
    assert len(made.plaintext) == KEY_LENGTH
    assert is_well_formed(made.plaintext)
    assert made.hash == hashlib.sha256(made.plaintext.encode()).digest() == hash_key(made.plaintext)
    assert made.plaintext.startswith(made.prefix)
    assert len(made.plaintext) - len(made.prefix) > 40, "what is shown must not help to guess the rest"


def test_no_two_keys_are_alike() -> None:
    assert len({generate_key(live=True).plaintext for _ in range(1000)}) == 1000


@given(st.integers(0, KEY_LENGTH - 1), st.characters(codec="utf-8"))
def test_a_typo_is_refused_without_a_look_up(place: int, typo: str) -> None:
    key = generate_key(live=False).plaintext
    changed = key[:place] + typo + key[place + 1 :]
    assert is_well_formed(changed) == (changed == key)


@given(st.text())
def test_a_text_is_no_key(text: str) -> None:
    assert not is_well_formed(text)


@pytest.mark.parametrize("text", ["", "nk_live_", "nk_live_" + "0" * 49, "nk_test_" + "é" * 49])
def test_what_only_looks_like_a_key_is_refused(text: str) -> None:
    assert not is_well_formed(text)
