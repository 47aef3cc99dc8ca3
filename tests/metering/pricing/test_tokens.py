"""Token classes: how reports overlay each other, bounds of a prompt, estimates of an unfinished answer."""

from dataclasses import astuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.journal.records import Settlement
from metering.pricing.tokens import (
    NO_USAGE,
    CacheCreation,
    ReportedUsage,
    ServerToolUse,
    Usage,
    bound_of_count,
    bound_of_text,
    estimate_output,
    image_tokens,
    likely_of_text,
    overlay,
    tool_overhead,
)

counts = st.integers(0, 2**53)
usages = st.builds(Usage, *[counts] * 7)
START = ReportedUsage(10, 1, 70, 5, CacheCreation(30, 40))


def test_the_sums_of_the_classes() -> None:
    usage = Usage(1, 20, 300, 4_000, 50_000, 15, 6)
    assert usage.prompt_tokens == 54_301
    assert sum(astuple(usage)[:5]) == 54_321
    assert usage + Usage(1, 1, 1, 1, 1, 1, 1) == Usage(2, 21, 301, 4_001, 50_001, 16, 7)


@given(usages, usages)
def test_adding_keeps_the_classes_apart(one: Usage, other: Usage) -> None:
    both = one + other
    assert both == other + one
    assert sum(astuple(both)) == sum(astuple(one)) + sum(astuple(other))
    assert both.cache_write_1h_tokens - other.cache_write_1h_tokens == one.cache_write_1h_tokens
    assert one + NO_USAGE == one


def test_the_start_alone() -> None:
    assert overlay(START, None) == Usage(10, 1, 5, 30, 40)


def test_a_delta_overwrites_what_it_names_and_nothing_else() -> None:
    assert overlay(START, ReportedUsage(output_tokens=9)) == Usage(10, 9, 5, 30, 40)
    assert overlay(START, ReportedUsage(output_tokens=0)) == Usage(10, 0, 5, 30, 40)
    assert overlay(START, ReportedUsage(11, 9, 70, 6)) == Usage(11, 9, 6, 30, 40)


@pytest.mark.parametrize(
    ("split", "writes", "five_minutes", "one_hour"),
    [
        (CacheCreation(30, 0), 100, 100, 0),
        (CacheCreation(30, 0), 10, 10, 0),
        (CacheCreation(0, 30), 100, 0, 100),
        (CacheCreation(0, 30), 10, 0, 10),
        (CacheCreation(30, 40), 100, 30, 70),
        (CacheCreation(0, 0), 100, 0, 100),
        (None, 100, 0, 100),
    ],
)
def test_writes_after_the_split_are_of_its_kind(
    split: CacheCreation | None, writes: int, five_minutes: int, one_hour: int
) -> None:
    start = ReportedUsage(10, 1, 30, 5, split)

    assert overlay(start, ReportedUsage(None, 9, writes)) == Usage(10, 9, 5, five_minutes, one_hour)


def test_thinking_and_searches_are_cumulative_like_the_rest() -> None:
    start = msgspec.json.decode(
        b'{"input_tokens": 10, "output_tokens": 1, "server_tool_use": null, "output_tokens_details": null}',
        type=ReportedUsage,
    )
    assert overlay(start, None) == Usage(10, 1)
    some = msgspec.json.decode(
        b'{"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 7, "new": 1},'
        b' "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 3}}',
        type=ReportedUsage,
    )
    assert overlay(start, some) == Usage(10, 9, thinking_tokens=7, web_searches=2)
    more = ReportedUsage(output_tokens=30, server_tool_use=ServerToolUse(5))
    assert overlay(start, some.then(more)) == Usage(10, 30, thinking_tokens=7, web_searches=5)
    none = msgspec.json.decode(b'{"output_tokens_details": {"thinking_tokens": null}}', type=ReportedUsage)
    assert overlay(start, none).thinking_tokens == 0
    assert overlay(start, some.then(none)).thinking_tokens == 7


def test_null_and_absent_are_not_said() -> None:
    delta = msgspec.json.decode(b'{"input_tokens": null, "output_tokens": 9, "new_field": {}}', type=ReportedUsage)
    assert overlay(START, delta) == Usage(10, 9, 5, 30, 40)
    assert overlay(ReportedUsage(), None) == NO_USAGE


def test_writes_that_the_split_does_not_explain_are_the_dearer_ones() -> None:
    assert overlay(ReportedUsage(cache_creation_input_tokens=50), None) == Usage(0, 0, 0, 0, 50)
    assert overlay(START, ReportedUsage(cache_creation_input_tokens=80)) == Usage(10, 1, 5, 30, 50)
    assert overlay(START, ReportedUsage(cache_creation_input_tokens=20)) == Usage(10, 1, 5, 20, 0)
    split_only = ReportedUsage(cache_creation=CacheCreation(3, 4))
    assert overlay(split_only, None) == Usage(0, 0, 0, 3, 4)


@given(st.integers(0, 1000), st.integers(0, 1000), st.none() | st.integers(0, 1000))
def test_no_write_is_lost(five_minutes: int, one_hour: int, flat: int | None) -> None:
    split = CacheCreation(five_minutes, one_hour)
    usage = overlay(ReportedUsage(cache_creation_input_tokens=flat, cache_creation=split), None)
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    assert written == (five_minutes + one_hour if flat is None else flat)
    assert min(usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) >= 0
    if five_minutes and not one_hour:
        assert usage.cache_write_1h_tokens == 0, "they are of the only kind that the split has"
    else:
        assert usage.cache_write_5m_tokens <= five_minutes


reports = st.builds(
    ReportedUsage, *(st.none() | st.integers(0, 100),) * 4, st.none() | st.builds(CacheCreation, counts, counts)
)


@given(reports, reports, reports)
def test_overlaying_is_associative_and_the_last_word_wins(a: ReportedUsage, b: ReportedUsage, c: ReportedUsage) -> None:
    assert a.then(b).then(c) == a.then(b.then(c))
    assert a.then(ReportedUsage()) == ReportedUsage().then(a) == a
    assert a.then(b).output_tokens == (a.output_tokens if b.output_tokens is None else b.output_tokens)
    assert overlay(a, b) == overlay(a.then(b), None)


def test_the_bounds_of_a_prompt() -> None:
    assert bound_of_text(1_000, 32) == 1_032
    assert likely_of_text(1_000, 32) == 365
    assert bound_of_count(100) == 110
    assert (bound_of_count(0), bound_of_count(49), bound_of_count(50)) == (8, 57, 59)


@given(st.integers(0, 10**7), st.integers(0, 100))
def test_what_is_likely_is_never_beyond_the_bound(size: int, overhead: int) -> None:
    assert overhead <= likely_of_text(size, overhead) <= bound_of_text(size, overhead)
    assert bound_of_count(size) > size


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("claude-3-5-sonnet-20241022", 1_568),
        ("claude-opus-4-20250514", 1_568),
        ("claude-haiku-4-5-20251001", 1_568),
        ("claude-sonnet-4-6", 1_568),
        ("claude-opus-4-7", 4_784),
        ("claude-opus-4-10", 4_784),
        ("claude-sonnet-5", 4_784),
        ("claude-fable-5-2", 4_784),
        ("claude-next", 4_784),
    ],
)
def test_an_image_is_bounded_by_the_version_in_the_models_name(model: str, most: int) -> None:
    assert image_tokens(model) == most


def test_a_tool_of_an_unknown_type_counts_as_the_largest() -> None:
    assert [tool_overhead(kind) for kind in (None, "custom", "bash_20250124", "text_editor_20250728")] == [
        0,
        0,
        325,
        700,
    ]
    assert tool_overhead("computer_20250124") == 1_234
    assert tool_overhead("memory_20250818") == tool_overhead("browser_toolset_20260801") == 8_000


def test_unfinished_output_is_estimated_by_its_length_rounded_up() -> None:
    assert [estimate_output(characters) for characters in (0, 1, 4, 5, 8, 9)] == [0, 1, 1, 2, 2, 3]


def test_the_defaults_of_a_settlement_bill_nothing() -> None:
    defaults = {field.name: field.default for field in Settlement.__dataclass_fields__.values()}
    assert (defaults["requests"], defaults["usage"], defaults["cost_nano_usd"]) == (1, NO_USAGE, 0)


def test_usage_that_an_older_version_wrote_to_disk_or_a_heartbeat_has_neither_thinking_nor_searches() -> None:
    older = msgspec.json.decode(b'{"input_tokens": 1, "output_tokens": 2, "cache_write_1h_tokens": 5}', type=Usage)
    assert older == Usage(1, 2, cache_write_1h_tokens=5)
