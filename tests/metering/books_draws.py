"""What test_books_machine.py draws: limits, questions, and how far an answer comes. Pure."""

from hypothesis import strategies as st

from core.money import ceil_div
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome
from metering.pricing.tokens import CacheCreation, OutputDetails, ReportedUsage, ServerToolUse
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.metering.books_model import CHARS_PER_TOKEN, Asked
from tests.metering.process import MODEL

ANY = st.integers(0, 11)
SMALL = st.integers(0, 60)
BLIND = st.sampled_from([False] * 14 + [True])
Asking = tuple[int, int, int, int, bool, int]
"""Who, by which process, prompt bytes, output tokens, whether it cannot see Redis, how far the answer comes."""
ASK = st.tuples(ANY, ANY, SMALL, st.integers(1, 60), BLIND, ANY)
BOUNDS = {
    Meter.TOKENS: st.integers(80, 600),
    Meter.REQUESTS: st.integers(1, 6),
    Meter.SPEND: st.integers(300, 6_000) | st.integers(20_300, 46_000),  # without room for web searches, and with it
    Meter.OUTPUT: st.integers(20, 150),
    Meter.INPUT: st.integers(60, 400),
}
LIMIT = st.sampled_from(list(BOUNDS)).flatmap(
    lambda meter: st.builds(Limit, st.just(meter), st.sampled_from(WindowKind), BOUNDS[meter])
)
LIMITS = st.builds(LimitSet, st.lists(LIMIT, max_size=3).map(tuple), st.sampled_from([None, None, 2, 3]))
OF_TENANT = st.tuples(LIMITS, LIMITS, LIMITS)


def start(asked: Asked, prompt: tuple[int, ...]) -> None:
    """`message_start`: its input is within the hold."""
    if asked.recorder and asked.recorder.started is None:
        left, classes = asked.request.held_prompt_tokens, []
        for tokens in prompt:
            classes.append(min(tokens, left))
            left -= classes[-1]
        plain, read, five, hour = classes
        asked.recorder.model = MODEL
        asked.recorder.started = ReportedUsage(plain, 1, five + hour, read, CacheCreation(five, hour))


def write(asked: Asked, chars: int) -> None:
    """Some text, as long as what it may come to."""
    if asked.recorder and asked.recorder.started and not asked.recorder.finished:
        most = asked.request.held_output_tokens * CHARS_PER_TOKEN
        asked.recorder.output_chars = min(asked.recorder.output_chars + chars, most)


def finish(asked: Asked, recorder: UsageRecorder, output: int) -> None:
    """The provider's final usage: no less than what it wrote, no more than it might."""
    written = ceil_div(recorder.output_chars, CHARS_PER_TOKEN)
    output = min(max(written, output), asked.request.held_output_tokens)
    recorder.latest, recorder.finished = (
        ReportedUsage(
            output_tokens=output,
            output_tokens_details=OutputDetails(output // 3),
            server_tool_use=ServerToolUse(min(output % 3, asked.request.held_web_searches)),
        ),
        True,
    )
    recorder.outcome, recorder.output_chars = Outcome.COMPLETED, output * CHARS_PER_TOKEN
