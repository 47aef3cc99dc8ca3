"""Token classes: how reports overlay each other, bounds of a prompt, estimates of an unfinished answer."""

from dataclasses import astuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from metering.journal.records import Settlement
from metering.pricing.tokens import (
    NO_USAGE,
    CacheCreation,
    ReportedUsage,
    Usage,
    bound_of_count,
    bound_of_text,
    estimate_output,
    likely_of_text,
    overlay,
)

counts = st.integers(0, 2**53)
usages = st.builds(Usage, counts, counts, counts, counts, counts)
START = ReportedUsage(10, 1, 70, 5, CacheCreation(30, 40))


def test_the_sums_of_the_classes() -> None:
    usage = Usage(1, 20, 300, 4_000, 50_000)
    assert usage.prompt_tokens == 54_301
    assert sum(astuple(usage)) == 54_321
    assert usage + Usage(1, 1, 1, 1, 1) == Usage(2, 21, 301, 4_001, 50_001)


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


def test_unfinished_output_is_estimated_by_its_length_rounded_up() -> None:
    assert [estimate_output(characters) for characters in (0, 1, 4, 5, 8, 9)] == [0, 1, 1, 2, 2, 3]


def test_the_defaults_of_a_settlement_bill_nothing() -> None:
    defaults = {field.name: field.default for field in Settlement.__dataclass_fields__.values()}
    assert (defaults["requests"], defaults["usage"], defaults["cost_nano_usd"]) == (1, NO_USAGE, 0)
