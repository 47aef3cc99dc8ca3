"""How tags are written, and their bounds."""

import pytest

from metering.tags.tags import InvalidTags, RequestTags, checked, merged, parse_header, with_overflow

SECRET = "xylophone"


def test_tags_are_ordered_trimmed_and_in_nfc() -> None:
    decomposed = "cafe\N{COMBINING ACUTE ACCENT}"
    assert checked([("feature", " search "), ("conversation", decomposed)]) == (
        ("conversation", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("feature", "search"),
    )
    assert checked([("a", "x" * 200)]) == (("a", "x" * 200),)
    assert checked([("a", "x"), ("a", "x ")]) == (("a", "x"),)
    assert checked([]) == ()


@pytest.mark.parametrize(
    "pairs",
    [
        [("Feature", "x")],
        [("", "x")],
        [("-a", "x")],
        [("a" * 41, "x")],
        [("nk:token", "x")],
        [("a b", "x")],
        [("a", "")],
        [("a", "  ")],
        [("a", "x" * 201)],
        [("a", f"{SECRET}\x00")],
        [("a", f"{SECRET}\u202e")],
        [("a", f"{SECRET}1"), ("a", f"{SECRET}2")],
        [(f"k{number}", "x") for number in range(9)],
    ],
)
def test_tags_out_of_bounds_are_refused_without_their_values(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidTags) as refused:
        checked(pairs)
    assert SECRET not in str(refused.value)


def test_the_header_is_read_with_percent_encoding_and_utf8() -> None:
    assert parse_header(b"feature=search, conversation=c%2C42") == [("feature", "search"), ("conversation", "c,42")]
    assert parse_header("team=caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode()) == [
        ("team", "caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    ]
    assert parse_header(b"a=b=c") == [("a", "b=c")]
    for wrong in (b"feature", b"feature=search,", b"a=\xff", b"a=%ff"):
        with pytest.raises(InvalidTags):
            parse_header(wrong)


def test_tags_of_a_token_win_and_count() -> None:
    own = (("customer", "acme"), ("feature", "chat"))
    assert merged(own, [("feature", "search"), ("team", "x")]) == (*own, ("team", "x"))
    assert merged((), [("team", "x")]) == (("team", "x"),)
    with pytest.raises(InvalidTags, match="at most 8"):
        merged(own, [(f"k{number}", "x") for number in range(7)])
    with pytest.raises(InvalidTags, match="two values"):
        merged(own, [("team", "x"), ("team", "y")])


def test_the_rows_columns() -> None:
    assert (RequestTags().as_json, RequestTags().joined_keys, RequestTags().added_up) == (None, None, ())
    stored = with_overflow({"feature": "search", "conversation": "c-7"}, ["feature", "conversation"], ["conversation"])
    assert stored.as_json == '{"conversation":"other","feature":"search","nk:other":"conversation"}'
    assert stored.joined_keys == "conversation,feature"
    assert stored.added_up == (("conversation", "other"), ("feature", "search"))
