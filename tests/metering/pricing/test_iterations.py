"""The usage of an answer by model: iterations where they are reported, else the top level."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.pricing.iterations import ModelUsage, message_output, usage_by_model, without_placeholders
from metering.pricing.tokens import (
    NO_USAGE,
    CacheCreation,
    Iteration,
    OutputDetails,
    ReportedUsage,
    ServerToolUse,
    Usage,
    overlay,
)

OWN, ADVISOR, FIRST = "claude-opus-5-5", "claude-fable-5-2", "claude-mythos-5-2"


def one(kind: str, tokens: int, output: int, model: str | None = None) -> Iteration:
    """An iteration with `tokens` of input and `output`."""
    return Iteration(type=kind, model=model, input_tokens=tokens, output_tokens=output)


def final(*iterations: Iteration, tokens: int = 0, output: int = 0, **extras: object) -> ReportedUsage:
    """A last report with these iterations, and other counts at its top level."""
    given = {"input_tokens": tokens, "output_tokens": output, "iterations": list(iterations)} | extras
    return ReportedUsage(**given)  # type: ignore[arg-type]


def test_without_iterations_the_top_level_counts() -> None:
    start = ReportedUsage(10, 1, 70, 5, CacheCreation(30, 40))
    told = ReportedUsage(output_tokens=9, output_tokens_details=OutputDetails(4), server_tool_use=ServerToolUse(2))
    whole = Usage(10, 9, 5, 30, 40, 4, 2)
    assert usage_by_model(start, told, OWN) == (ModelUsage(OWN, whole),)
    assert usage_by_model(start, msgspec.structs.replace(told, iterations=[]), OWN) == (ModelUsage(OWN, whole),)


def test_iterations_replace_the_tokens_of_the_top_level() -> None:
    told = final(one("message", 100, 10), one("message", 130, 7, OWN), tokens=9_999, output=9_999)
    assert usage_by_model(ReportedUsage(10, 1), told, OWN) == (ModelUsage(OWN, Usage(230, 17)),)


def test_a_compaction_and_an_advisor_are_billed_beside_the_message() -> None:
    told = final(
        one("compaction", 5_000, 300),
        one("message", 400, 20),
        one("advisor_message", 800, 90, ADVISOR),
        one("advisor_message", 100, 10, ADVISOR),
        one("message", 500, 30),
        tokens=900,
        output=50,
        output_tokens_details=OutputDetails(40),
        server_tool_use=ServerToolUse(3),
    )
    assert usage_by_model(ReportedUsage(), told, OWN) == (
        ModelUsage(OWN, Usage(5_900, 350, thinking_tokens=40, web_searches=3)),
        ModelUsage(ADVISOR, Usage(900, 100)),
    )


def test_every_class_of_an_iteration_counts() -> None:
    whole = Iteration(1, 2, 70, 5, CacheCreation(30, 40), OutputDetails(2), type="advisor_message", model=ADVISOR)
    mine, others = usage_by_model(ReportedUsage(), final(whole), OWN)
    assert mine == ModelUsage(OWN)
    assert others == ModelUsage(ADVISOR, Usage(1, 2, 5, 30, 40, 2))


def test_an_attempt_declined_without_output_is_free_and_one_with_output_is_not() -> None:
    served = one("fallback_message", 120, 60, OWN)
    declined = one("message", 100, 0, FIRST)
    assert usage_by_model(ReportedUsage(), final(declined, served), OWN) == (ModelUsage(OWN, Usage(120, 60)),)
    halfway = one("message", 100, 8, FIRST)
    assert usage_by_model(ReportedUsage(), final(halfway, declined, served), OWN) == (
        ModelUsage(OWN, Usage(120, 60)),
        ModelUsage(FIRST, Usage(100, 8)),
    )


def test_a_message_without_output_that_no_fallback_replaced_is_billed() -> None:
    warmed = final(one("message", 100, 0))  # max_tokens: 0 fills the cache
    assert usage_by_model(ReportedUsage(), warmed, OWN) == (ModelUsage(OWN, Usage(100)),)
    after = final(one("fallback_message", 5, 5), one("message", 100, 0))
    assert usage_by_model(ReportedUsage(), after, OWN) == (ModelUsage(OWN, Usage(105, 5)),)


def test_a_refusal_without_output_is_free_but_for_what_wrote_something() -> None:
    start = ReportedUsage(10, 1)
    assert usage_by_model(start, ReportedUsage(output_tokens=0), OWN, refused=True) == (ModelUsage(OWN),)
    told = final(one("compaction", 50, 9), one("message", 20, 0), one("message", 20, 0, FIRST))
    assert usage_by_model(start, told, OWN, refused=True) == (ModelUsage(OWN, Usage(50, 9)),)


def test_an_unknown_iteration_type_is_billed_and_flagged() -> None:
    told = final(one("message", 10, 1), one("dream_message", 70, 7, ADVISOR), one("advisor_message", 1, 1, FIRST))
    assert usage_by_model(ReportedUsage(), told, OWN) == (
        ModelUsage(OWN, Usage(10, 1)),
        ModelUsage(ADVISOR, Usage(70, 7), is_known=False),
        ModelUsage(FIRST, Usage(1, 1)),
    )


def test_the_placeholders_of_the_start_are_the_messages_own() -> None:
    start = ReportedUsage(10, 3, iterations=[one("compaction", 50, 9), one("message", 10, 3)])
    cleared = without_placeholders(start)
    assert usage_by_model(cleared, None, OWN) == (ModelUsage(OWN, Usage(60, 9)),)
    assert overlay(cleared, None) == Usage(10)
    assert without_placeholders(ReportedUsage(10, 3)) == ReportedUsage(10)


def test_a_last_report_without_iterations_is_the_message_itself() -> None:
    start = ReportedUsage(10, 3, iterations=[one("compaction", 50, 9), one("message", 10, 3)])
    told = ReportedUsage(output_tokens=40)
    assert usage_by_model(start, told, OWN) == (ModelUsage(OWN, Usage(60, 49)),)
    assert message_output(start, told, OWN) == 40


def test_the_output_of_the_message_itself() -> None:
    told = final(
        one("compaction", 1, 9), one("message", 1, 5), one("message", 1, 7, FIRST), one("fallback_message", 1, 3)
    )
    assert message_output(ReportedUsage(1, 2), None, OWN) == 2
    assert message_output(ReportedUsage(1, 2), ReportedUsage(output_tokens=6), OWN) == 6
    assert message_output(ReportedUsage(1, 2), told, OWN) == 8


def test_a_report_is_decoded_strictly_and_unknown_fields_are_ignored() -> None:
    decode = msgspec.json.Decoder(ReportedUsage).decode
    told = decode(
        b'{"input_tokens": 1, "speed": "fast", "inference_geo": "us", "service_tier": null, "new": [1],'
        b' "output_tokens_details": {"thinking_tokens": 4, "new": 1}, "server_tool_use": {"web_search_requests": 2,'
        b' "web_fetch_requests": 9}, "iterations": [{"type": "compaction", "input_tokens": 5, "output_tokens": 6,'
        b' "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation": null, "model": null,'
        b' "new": {}}], "fallback_credit": {"status": "redeemed"}}'
    )
    assert (told.speed, told.inference_geo, told.service_tier) == ("fast", "us", None)
    assert told.iterations == [Iteration(5, 6, 0, 0, type="compaction")]
    assert overlay(told, None) == Usage(1, thinking_tokens=4, web_searches=2)


@pytest.mark.parametrize(
    "usage",
    [
        b'{"output_tokens_details": {"thinking_tokens": -1}}',
        b'{"server_tool_use": {"web_search_requests": 1.5}}',
        b'{"server_tool_use": [1]}',
        b'{"iterations": {}}',
        b'{"iterations": [{"type": "message", "output_tokens": -1}]}',
        b'{"iterations": [{"type": "message", "model": "a\\u0000"}]}',
        b'{"speed": 2}',
    ],
)
def test_a_report_that_makes_no_sense_is_refused(usage: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(usage, type=ReportedUsage)


counts = st.none() | st.integers(0, 1_000)
models = st.sampled_from([None, OWN, ADVISOR, FIRST])
iterations = st.builds(
    Iteration,
    *(counts,) * 4,
    type=st.sampled_from(["message", "compaction", "advisor_message", "fallback_message", "dream_message"]),
    model=models,
)
reports = st.builds(
    ReportedUsage,
    *(counts,) * 4,
    output_tokens_details=st.none() | st.builds(OutputDetails, counts),
    server_tool_use=st.none() | st.builds(ServerToolUse, counts),
    iterations=st.none() | st.lists(iterations, max_size=6),
)


@given(start=reports, latest=st.none() | reports, refused=st.booleans())
def test_nothing_with_output_is_lost_or_counted_twice(
    *, start: ReportedUsage, latest: ReportedUsage | None, refused: bool
) -> None:
    parts = usage_by_model(start, latest, OWN, refused=refused)
    assert parts[0].model == OWN
    assert len({part.model for part in parts}) == len(parts)
    told = start if latest is None else start.then(latest)
    total = sum((part.usage for part in parts), NO_USAGE)
    listed = (latest and latest.iterations) or start.iterations or []
    if latest and latest.output_tokens is not None and start.iterations and not latest.iterations:
        kept = [each for each in start.iterations if each.type not in {"message", "fallback_message"}]
        assert total.output_tokens == latest.output_tokens + sum(each.output_tokens or 0 for each in kept)
    elif listed:
        assert total.output_tokens == sum(each.output_tokens or 0 for each in listed)
        assert total.prompt_tokens <= sum(
            (each.input_tokens or 0) + (each.cache_creation_input_tokens or 0) + (each.cache_read_input_tokens or 0)
            for each in listed
        )
        assert parts[0].usage.thinking_tokens <= parts[0].usage.output_tokens
        assert total.web_searches == overlay(told, None).web_searches
    else:
        assert total == (NO_USAGE if refused else overlay(told, None))


@given(reports)
def test_a_whole_report_bills_every_iteration_that_no_fallback_replaced(told: ReportedUsage) -> None:
    kinds = [each for each in told.iterations or [] if each.type != "fallback_message"]
    told = msgspec.structs.replace(told, iterations=kinds)
    total = sum((part.usage for part in usage_by_model(told, None, OWN)), NO_USAGE)
    if kinds:
        assert total.input_tokens == sum(each.input_tokens or 0 for each in kinds)
        assert total.cache_read_tokens == sum(each.cache_read_input_tokens or 0 for each in kinds)
