"""Thinking that is charged and never sent: what a broken answer's output can be, by its time and its bounds."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Source
from metering.pricing.tokens import Iteration, ReportedUsage, Usage
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.heartbeat import progress_of
from metering.settlement.output_rates import DEFAULT_PER_S, ENOUGH_TOKENS, OutputRates
from metering.settlement.token_counting import OutputCounter
from tests.harness import Books
from tests.metering.faults import INPUT, recover, row_of, stream
from tests.metering.process import Process

MODEL = "claude-opus-5-5"
TEXT = "forty characters of text, counted twice."
Start = Callable[..., Awaitable[Process]]


def thinking(seconds: float = 10, *, closed: bool = True, text: str = "", granted: int = 5_000) -> UsageRecorder:
    """An answer that thought unseen for some seconds, wrote `text`, and broke off."""
    recorder = UsageRecorder(granted, 0, outcome=Outcome.CLIENT_GONE, model=MODEL)
    recorder.answered(ReportedUsage(10, 1))
    recorder.thinking_opened(100.0)
    if closed:
        recorder.thinking_closed(100.0 + seconds)
    recorder.took(text)
    recorder.ended_s = 100.0 + seconds
    return recorder


async def measured(recorder: UsageRecorder, *, counted: int | None = None) -> tuple[int, Source]:
    """The output tokens and their source; the provider counts every text as `counted`."""

    async def count(model: str, text: str) -> int:
        assert (model, text) == (MODEL, TEXT)
        return counted or 0

    counter = OutputCounter(None if counted is None else count, CharsPerToken())
    (own,), source = await counter.measure(recorder)
    assert own.usage == Usage(10, own.usage.output_tokens)
    return own.usage.output_tokens, source


@pytest.mark.parametrize("closed", [True, False])
async def test_hidden_thinking_is_estimated_by_its_seconds(*, closed: bool) -> None:
    assert await measured(thinking(10, closed=closed)) == (10 * DEFAULT_PER_S, Source.ESTIMATED)
    assert await measured(thinking(0.001)) == (1, Source.ESTIMATED)
    assert await measured(thinking(0)) == (0, Source.ESTIMATED), "what was relayed says nothing of it"


async def test_the_text_that_follows_is_added() -> None:
    assert await measured(thinking(10, text=TEXT), counted=9) == (10 * DEFAULT_PER_S + 9, Source.ESTIMATED)
    assert await measured(thinking(10, text=TEXT)) == (10 * DEFAULT_PER_S + 10, Source.ESTIMATED)


async def test_thinking_that_is_shown_is_counted_as_text() -> None:
    recorder = thinking(10, closed=False, text=TEXT)  # its text arrives while the block is open
    assert await measured(recorder, counted=9) == (9, Source.COUNTED)
    recorder = thinking(10, closed=False, text=TEXT)
    recorder.thinking_closed(110)
    assert await measured(recorder, counted=9) == (9, Source.COUNTED)


async def test_it_is_at_most_what_was_granted_and_the_budget() -> None:
    assert await measured(thinking(10, granted=70)) == (70, Source.ESTIMATED)
    recorder = thinking(10, text=TEXT)
    recorder.hidden_thinking.budget_tokens = 100
    assert await measured(recorder, counted=9) == (109, Source.ESTIMATED)


async def test_it_is_at_least_what_the_provider_reported() -> None:
    recorder = thinking(1)
    recorder.latest = ReportedUsage(output_tokens=1_000)
    assert await measured(recorder) == (1_000, Source.ESTIMATED)


async def test_the_providers_own_estimate_counts() -> None:
    recorder = thinking(10)
    recorder.thinking_estimated(50)
    recorder.thinking_estimated(150)
    assert await measured(recorder) == (200, Source.ESTIMATED)


async def test_several_blocks_add_up() -> None:
    recorder = thinking(2, text=TEXT)
    recorder.thinking_opened(200)
    recorder.took(TEXT)
    recorder.thinking_closed(300)  # shown
    recorder.thinking_opened(400)
    recorder.thinking_closed(403)
    recorder.thinking_closed(500)  # nothing is open
    assert recorder.hidden_s(1_000) == 5
    recorder.thinking_opened(600)
    assert recorder.hidden_s(601.5) == 6.5


async def test_a_compaction_is_beside_the_message() -> None:
    recorder = thinking(10)
    recorder.started = ReportedUsage(
        10, 1, iterations=[Iteration(5, 300, type="compaction"), Iteration(5, 1, type="message")]
    )
    assert await measured(recorder) == (300 + 10 * DEFAULT_PER_S, Source.ESTIMATED)


async def test_a_complete_answer_has_final_usage_and_teaches_the_rate() -> None:
    counter = OutputCounter(None, CharsPerToken())
    whole = thinking(10, text=TEXT)
    whole.latest, whole.finished, whole.answered_s, whole.ended_s = ReportedUsage(output_tokens=3_000), True, 100, 120
    (own,), source = await counter.measure(whole)
    assert (own.usage.output_tokens, source) == (3_000, Source.FINAL)
    assert counter.output_rates.estimate(MODEL, 2) == 300
    assert counter.output_rates.estimate("another", 2) == 2 * DEFAULT_PER_S
    assert counter.chars_per_token.take() == [], "its characters are not all that it wrote"


def test_a_refusal_after_hidden_thinking_wrote_something() -> None:
    silent = UsageRecorder(100, 0)
    assert silent.wrote_nothing
    assert not thinking().wrote_nothing
    assert not thinking(closed=False).wrote_nothing
    silent.took("x")
    assert not silent.wrote_nothing


@pytest.mark.parametrize(("tokens", "seconds"), [(10, 0), (10, -1), (10_000, 1), (4, 1), (10, 10**9)])
def test_a_rate_that_is_no_models_teaches_nothing(tokens: int, seconds: float) -> None:
    rates = OutputRates()
    for _ in range(ENOUGH_TOKENS):
        rates.observe(MODEL, tokens, seconds)
    assert rates.estimate(MODEL, 1) == DEFAULT_PER_S


def test_a_few_tokens_teach_nothing_yet_and_old_ones_weigh_less() -> None:
    rates = OutputRates()
    rates.observe(MODEL, ENOUGH_TOKENS - 1, 20)
    assert rates.estimate(MODEL, 1) == DEFAULT_PER_S
    rates.observe(MODEL, 1, 0.1)
    assert rates.estimate(MODEL, 201) == 20_000
    for _ in range(1_000):
        rates.observe(MODEL, 10_000, 200)
    assert rates.estimate(MODEL, 100) == 5_000
    for number in range(1_000):
        rates.observe(f"model-{number}", 5_000, 50)
    assert len(rates._known) == 64


@given(
    st.floats(0, 10**5),
    st.integers(0, 10**6),
    st.none() | st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.none() | st.integers(0, 10**6),
)
async def test_the_output_is_between_what_was_reported_and_what_was_granted(
    seconds: float, granted: int, budget: int | None, estimated: int, told: int | None
) -> None:
    recorder = thinking(seconds, granted=granted)
    recorder.hidden_thinking.budget_tokens = budget
    recorder.thinking_estimated(estimated)
    recorder.latest = None if told is None else ReportedUsage(output_tokens=told)
    output, _ = await measured(recorder)
    assert (told or 0) <= output <= max(told or 0, granted)
    assert output <= max(told or 0, granted if budget is None else budget)


def test_a_beat_carries_the_estimate() -> None:
    recorder = thinking(10, closed=False)
    hidden = OutputRates().hidden_tokens(recorder, 104)
    assert hidden == 4 * DEFAULT_PER_S
    assert progress_of(uuid4(), recorder, hidden).hidden_tokens == hidden


async def test_a_killed_process_is_billed_alike(start: Start, books: Books) -> None:
    dead, alive = await start(), await start()
    grant, recorder = await stream(dead, await books.account(), chars=40)
    recorder.thinking_opened(100)
    recorder.thinking_closed(100.5)
    recorder.hidden_thinking.budget_tokens = 20
    await dead.heartbeat.beat()
    assert await recover(alive, dead, books) == 1
    row = await row_of(books, grant)
    usage = replace(INPUT, output_tokens=10 + 20)
    assert (row["output_tokens"], row["source"]) == (30, "estimated")
    assert row["cost_nano_usd"] == grant.price.cost_nano_usd(usage)
