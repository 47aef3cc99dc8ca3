"""The usage of a request and its source: final, counted or estimated; and characters per token."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.stream_errors import UpstreamFault
from api.gateway.upstream.client import Upstream
from core.errors import Unavailable
from core.resilience.shares import OWNER, FairPool
from core.settings import Settings
from metering.journal.recorder import MAX_TEXT_CHARS, UsageRecorder
from metering.journal.records import Outcome, Source
from metering.pricing.tokens import NO_USAGE, CacheCreation, ReportedUsage, Usage
from metering.settlement import token_counting as counting
from metering.settlement.chars_per_token import ENOUGH_TOKENS, CharsPerToken
from metering.settlement.token_counting import OutputCounter, broken_usage, final_usage
from metering.sql import load
from sandbox.anthropic import count_text
from tests.harness import SIMULATOR_KEY, Books, Simulator, scripted
from tests.metering.process import Process
from tests.servers import asyncpg_dsn

MODEL = "claude-sonnet-4-6"
START = ReportedUsage(10, 1, 70, 5, CacheCreation(30, 40))
TEXTS = [
    "x",
    "The toll post counts every word that passes.",
    "def toll(x: int) -> int:\n    return {0: 'नाका'}.get(x, 7)  # ✓\n",
    "यह नाका है, और यहाँ हर शब्द गिना जाता है।",
    "関所は言葉を数える。🧾🧾 \u0000\u0001",
    "long enough for several pieces " * 400,
]


def broken(text: str = "forty characters of text, counted twice.", **known: Any) -> UsageRecorder:
    """The recorder of a request that broke off after `text`."""
    made = UsageRecorder(
        2048, 0, outcome=Outcome.CLIENT_GONE, started=START, model=MODEL, pieces=[text], output_chars=len(text)
    )
    for name, value in known.items():
        setattr(made, name, value)
    return made


def said(tokens: int | None) -> ReportedUsage:
    return ReportedUsage(output_tokens=tokens)


async def measure(counter: OutputCounter, recorder: UsageRecorder) -> tuple[Usage, Source]:
    """The measurement of an answer by one model."""
    (own,), source = await counter.measure(recorder)
    return own.usage, source


def counts(tokens: int) -> Callable[[str, str], Awaitable[int]]:
    """A provider whose count of every text is this."""

    async def count(model: str, text: str) -> int:
        assert (model, text) == (MODEL, "forty characters of text, counted twice.")
        return tokens

    return count


async def test_before_message_start_nothing_is_billed() -> None:
    silent = broken(started=None, outcome=Outcome.UPSTREAM_REFUSED)
    assert await measure(OutputCounter(None, CharsPerToken()), silent) == (NO_USAGE, Source.FINAL)


def unanswered(count: Callable[[], Awaitable[int]] | None) -> UsageRecorder:
    """A request that was sent and never answered."""
    return broken("", started=None, unanswered=True, most_prompt_tokens=100, count_prompt=count)


@pytest.mark.parametrize(("counted", "expected"), [(7, 7), (100, 100), (101, 100), (0, 0)])
async def test_a_prompt_that_was_never_answered_is_counted_up_to_its_hold(counted: int, expected: int) -> None:
    async def count() -> int:
        return counted

    recorder = unanswered(count)
    usage = Usage(input_tokens=expected)
    assert await measure(OutputCounter(None, CharsPerToken()), recorder) == (usage, Source.ESTIMATED)
    assert recorder.count_prompt is None


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("text"), TimeoutError(), None])
async def test_a_prompt_that_nobody_counts_is_what_was_held(error: Exception | None) -> None:
    async def fail() -> int:
        assert error is not None
        raise error

    recorder = unanswered(None if error is None else fail)
    held = Usage(input_tokens=100)
    assert await measure(OutputCounter(None, CharsPerToken()), recorder) == (held, Source.ESTIMATED)


@pytest.mark.parametrize(
    ("once", "counted", "expected"), [(40, None, 40), (101, None, 100), (40, 7, 7), (40, 41, 40), (None, None, 100)]
)
async def test_an_unanswered_prompt_is_that_of_one_inference(
    process: Process, books: Books, once: int | None, counted: int | None, expected: int
) -> None:
    grant = await process.admit(await books.account())
    assert grant.request.held_prompt_tokens == 100

    async def count() -> int:
        assert counted is not None
        return counted

    recorder = process.settlements.recorder(grant, None if counted is None else count, prompt_once=once)
    recorder.sent()
    usage = Usage(input_tokens=expected)
    assert await measure(OutputCounter(None, CharsPerToken()), recorder) == (usage, Source.ESTIMATED)


async def test_a_prompt_that_was_refused_or_answered_is_not_counted() -> None:
    async def never() -> int:
        raise AssertionError

    refused, answered = unanswered(never), unanswered(never)
    refused.refused()
    answered.answered(START)
    assert await measure(OutputCounter(None, CharsPerToken()), refused) == (NO_USAGE, Source.FINAL)
    assert await measure(OutputCounter(None, CharsPerToken()), answered) == (Usage(10, 0, 5, 30, 40), Source.COUNTED)
    assert answered.count_prompt is None


async def test_a_refusal_without_a_word_is_billed_nothing() -> None:
    refused = broken("", outcome=Outcome.REFUSED, finished=True, latest=said(0))
    assert await measure(OutputCounter(None, CharsPerToken()), refused) == (NO_USAGE, Source.FINAL)


@pytest.mark.parametrize(
    ("latest", "counted", "expected"),
    [
        (None, 9, 9),  # the 1 of message_start is a placeholder
        (said(25), 9, 25),  # the provider has told us of more than it sent
        (said(3), 9, 9),
        (said(None), 9, 9),
        (None, 2049, 2048),  # it cannot have written more than it was granted
        (said(3000), 9, 3000),  # but if it says so
    ],
)
async def test_a_broken_answer_is_counted(latest: ReportedUsage | None, counted: int, expected: int) -> None:
    counter = OutputCounter(counts(counted), CharsPerToken())
    recorder = broken(latest=latest)
    assert await measure(counter, recorder) == (Usage(10, expected, 5, 30, 40), Source.COUNTED)
    assert recorder.pieces == []


async def test_an_answer_with_final_usage_is_not_counted() -> None:
    whole = broken(finished=True, latest=said(7))
    assert await measure(OutputCounter(counts(1), CharsPerToken()), whole) == (Usage(10, 7, 5, 30, 40), Source.FINAL)
    assert whole.pieces == []


async def test_nothing_was_said_and_nothing_is_asked() -> None:
    async def never(_model: str, _text: str) -> int:
        raise AssertionError

    assert await measure(OutputCounter(never, CharsPerToken()), broken("")) == (
        Usage(10, 0, 5, 30, 40),
        Source.COUNTED,
    )


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("text"), KeyError(), TimeoutError(), OSError()])
async def test_a_count_that_fails_leaves_an_estimate(error: Exception) -> None:
    async def fail(_model: str, _text: str) -> int:
        raise error

    assert await measure(OutputCounter(fail, CharsPerToken()), broken()) == (
        Usage(10, 10, 5, 30, 40),
        Source.ESTIMATED,
    )


async def test_a_count_that_never_comes_leaves_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_model: str, _text: str) -> int:
        await asyncio.sleep(60)
        return 1

    monkeypatch.setattr(counting, "_LONGEST_S", 0.05)
    async with asyncio.timeout(5):
        assert (await measure(OutputCounter(hang, CharsPerToken()), broken()))[1] is Source.ESTIMATED


@pytest.mark.parametrize("known", [{"pieces": []}, {"pieces": ["not all"]}, {"model": None}])
async def test_only_the_whole_text_of_a_known_model_is_counted(known: dict[str, Any]) -> None:
    usage, source = await measure(OutputCounter(counts(3), CharsPerToken()), broken(**known))
    assert (usage.output_tokens, source) == (10, Source.ESTIMATED)


def test_a_text_beyond_the_bound_is_not_kept() -> None:
    recorder = broken("x" * MAX_TEXT_CHARS)
    assert recorder.text() is not None
    recorder.forget_text()
    assert recorder.text() is None


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.none() | st.integers(0, 10**12))
def test_output_is_between_what_was_told_and_what_was_granted(relayed: int, granted: int, told: int | None) -> None:
    recorder = broken(latest=None if told is None else said(told), granted_output_tokens=granted)
    assert final_usage(recorder) is None
    (own,) = broken_usage(recorder, relayed)
    usage = own.usage
    assert (told or 0) <= usage.output_tokens <= max(told or 0, granted)
    assert (usage.input_tokens, usage.cache_read_tokens) == (10, 5)
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (30, 40)


# -- characters per token


async def test_whole_answers_tell_the_characters_per_token_and_broken_ones_do_not() -> None:
    measured = CharsPerToken()
    counter = OutputCounter(None, measured)
    await measure(counter, broken("x" * 1200, finished=True, latest=said(ENOUGH_TOKENS - 100)))
    assert measured.estimate(MODEL, 1000) == 250
    await measure(counter, broken("x" * 300))
    await measure(counter, broken("", outcome=Outcome.REFUSED, finished=True, latest=said(0)))
    await measure(counter, broken("x" * 300, finished=True, latest=said(100)))
    assert measured.take() == [(MODEL, 1500, 500)]
    assert [measured.estimate(MODEL, chars) for chars in (0, 1, 3, 4, 1000)] == [0, 1, 1, 2, 334]
    assert measured.estimate("another", 1000) == 250
    usage, source = await measure(counter, broken("x" * 300))
    assert (usage.output_tokens, source) == (100, Source.ESTIMATED)


@pytest.mark.parametrize(("chars", "tokens"), [(0, 5), (10, 0), (10, 41), (10, 10**12), (33, 1)])
def test_tokens_that_cannot_be_the_texts_tell_nothing(chars: int, tokens: int) -> None:
    measured = CharsPerToken()
    measured.observe(MODEL, chars, tokens)
    assert measured.take() == []


def test_what_was_taken_is_known_until_the_table_has_it() -> None:
    measured = CharsPerToken()
    measured.observe(MODEL, 2000, 1000)
    taken = measured.take()
    assert (measured.take(), measured.estimate(MODEL, 10)) == ([], 5)
    measured.put_back(taken)
    assert measured.estimate(MODEL, 10) == 5
    measured.observe(MODEL, 4000, 1000)
    assert measured.take() == [(MODEL, 6000, 2000)]
    measured.observe(MODEL, 1000, 1000)
    measured.loaded([(MODEL, 9000, 3000), ("another", 5000, 1000)])
    assert measured.estimate(MODEL, 10_000) == 4000  # 9000 of the table and 1000 that it has not yet
    assert measured.estimate("another", 10) == 2


def test_a_provider_that_echoes_a_new_name_each_time_fills_no_memory() -> None:
    measured = CharsPerToken()
    for number in range(1000):
        measured.observe(f"model-{number}", 10, 5)
    assert len(measured.take()) == 64


async def test_the_table_adds_and_forgets_slowly(database_url: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(database_url))

    async def share(*measured: tuple[str, int, int]) -> dict[str, tuple[int, int]]:
        columns = zip(*measured, strict=True) if measured else ((), (), ())
        return {
            row[0]: (row[1], row[2]) for row in await connection.fetch(load("chars_per_token"), *map(list, columns))
        }

    try:
        assert await share() == {}
        assert await share(("b", 8, 2), ("a", 3, 1)) == {"a": (3, 1), "b": (8, 2)}
        assert await share(("b", 2, 2)) == {"a": (3, 1), "b": (10, 4)}
        assert await share(("a", 9_999_997, 4_999_999)) == {"a": (10_000_000, 5_000_000), "b": (10, 4)}
        assert await share(("a", 2, 2)) == {"a": (5_000_001, 2_500_001), "b": (10, 4)}
        assert await share() == {"a": (5_000_001, 2_500_001), "b": (10, 4)}
    finally:
        await connection.close()


# -- the provider's count


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    made = Simulator()
    yield made
    made.stop()


@pytest.fixture
async def upstream(simulator: Simulator) -> AsyncIterator[Upstream]:
    settings = {"anthropic_api_key": SIMULATOR_KEY, "anthropic_base_url": simulator.url}
    made = Upstream(Settings.model_validate(settings))
    yield made
    await made.close()


async def test_a_text_counts_as_what_it_was_as_output(upstream: Upstream, simulator: Simulator) -> None:
    before = len(simulator.counts())
    assert [await upstream.count_output(MODEL, text) for text in TEXTS] == list(map(count_text, TEXTS))
    assert len(simulator.counts()) - before == len(TEXTS) + 1, "the overhead is measured once"


@pytest.mark.parametrize(
    "text",
    [
        scripted(count_status=500),
        scripted(count_status=429),
        scripted(count_skew=-100),  # less than the overhead
        scripted(count_skew=1000),  # more than a token a byte
        "[[sim {half a marker",  # refused
        "\ud800",  # cannot even be sent
    ],
)
async def test_what_is_no_count_of_the_text_is_a_fault(upstream: Upstream, text: str) -> None:
    with pytest.raises(UpstreamFault):
        await upstream.count_output(MODEL, text)


async def test_a_model_that_the_provider_does_not_know_is_a_fault(upstream: Upstream) -> None:
    with pytest.raises(UpstreamFault):
        await upstream.count_output("claude-of-the-future", "text")


async def test_few_count_at_once_and_the_rest_waits_its_turn(upstream: Upstream, simulator: Simulator) -> None:
    await upstream.count_output(MODEL, "x")
    slow = scripted(count_delay_ms=100)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await asyncio.gather(*(upstream.count_output(MODEL, slow) for _ in range(48))) == [count_text(slow)] * 48
    assert loop.time() - began >= 0.3
    rows = simulator.counts()[-48:]
    moments = sorted([(row["started_ms"], 1) for row in rows] + [(row["ended_ms"], -1) for row in rows])
    running = longest = 0
    for _, step in moments:
        running += step
        longest = max(longest, running)
    assert 1 < longest <= 16


async def test_too_many_are_not_even_asked(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream._counts = FairPool("counts", 2, max_waiting=18, wait_s=5)  # of one tenant 1 runs and 9 wait
    monkeypatch.setattr("api.gateway.upstream.client._COUNT_S", 0.3)
    stuck = scripted(count_delay_ms=1000)
    asked = [asyncio.create_task(upstream.count_output(MODEL, stuck)) for _ in range(10)]
    await asyncio.sleep(0)
    with pytest.raises(UpstreamFault, match="busy"):
        await upstream.count_output(MODEL, "one more")
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(end) for end in ends} == {UpstreamFault}
    monkeypatch.setattr("api.gateway.upstream.client._COUNT_S", 5)
    assert await upstream.count_output(MODEL, "places are free again") == count_text("places are free again")


async def test_a_tenant_that_counts_without_end_takes_no_turn_from_another(upstream: Upstream) -> None:
    await upstream.count_output(MODEL, "x")
    stuck = scripted(count_delay_ms=4000)

    async def count(tenant: str, text: str) -> int:
        OWNER.set(tenant)
        return await upstream.count_output(MODEL, text)

    greedy = [asyncio.create_task(count("greedy", stuck)) for _ in range(100)]
    await asyncio.sleep(0.2)
    began = time.monotonic()
    modest = [asyncio.create_task(count("modest", TEXTS[1])) for _ in range(8)]
    assert await asyncio.gather(*modest) == [count_text(TEXTS[1])] * 8
    assert time.monotonic() - began < 2, "it did not wait for those of the other"
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


async def test_the_counts_of_a_settlement_do_not_wait_for_those_of_its_tenant(upstream: Upstream) -> None:
    places = upstream._counts = FairPool("counts", 8, max_waiting=64, wait_s=0.2)
    counter = OutputCounter(upstream.count_output, CharsPerToken())
    free = asyncio.Event()

    async def asked_by_the_tenant() -> None:
        async with places.wait("tenant"):
            await free.wait()

    async def prompt() -> int:
        assert OWNER.get() == ("tenant", "settle")
        return 7

    asked = [asyncio.create_task(asked_by_the_tenant()) for _ in range(4)]
    await asyncio.sleep(0)
    assert places.held_by("tenant") == 4, "all that it may have"
    OWNER.set("tenant")
    with pytest.raises(UpstreamFault):
        await upstream.count_output(MODEL, TEXTS[1])

    assert (await measure(counter, broken(TEXTS[1])))[1] is Source.COUNTED
    assert await measure(counter, unanswered(prompt)) == (Usage(input_tokens=7), Source.ESTIMATED)
    assert OWNER.get() == "tenant"
    free.set()
    await asyncio.gather(*asked)


async def test_an_answer_that_broke_off_is_measured_by_the_provider(upstream: Upstream) -> None:
    counter = OutputCounter(upstream.count_output, CharsPerToken())
    for text in TEXTS:
        recorder = broken(text, granted_output_tokens=10_000, pieces=list(text))
        assert await measure(counter, recorder) == (Usage(10, count_text(text), 5, 30, 40), Source.COUNTED)
    failing = f"{json.dumps(TEXTS)} [[sim {{}}"
    usage, source = await measure(counter, broken(failing, granted_output_tokens=10_000))
    assert (usage.output_tokens, source) == (-(-len(failing) // 4), Source.ESTIMATED)
