"""Ids of events: every cut of an answer into pieces gives the same ids, and each id continues where it stands."""

from hypothesis import given
from hypothesis import strategies as st

from api.gateway.idempotency.event_ids import EventIds, Place, place_of
from api.gateway.sse import DONE, KEEPALIVE, TextFramer

RUN = "0123456789abcdef" * 2
TEXTS = st.lists(st.text(st.sampled_from("ab\n\r :🧾"), min_size=1, max_size=6), max_size=8)


def framed(texts: list[str]) -> bytes:
    """The answer of `/chat`, with a comment after each text."""
    framer = TextFramer()
    return b"".join(framer.frame(text) + KEEPALIVE for text in texts) + framer.rest() + DONE


def cut(answer: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(answer)) for place in places} | {len(answer)})
    return [answer[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@given(TEXTS, st.lists(st.integers(0, 200), max_size=6))
def test_ids_do_not_depend_on_the_pieces(texts: list[str], places: list[int]) -> None:
    answer = framed(texts)
    ids = EventIds(RUN)
    marked = b"".join(ids.mark(piece) for piece in cut(answer, places))
    assert marked == EventIds(RUN).mark(answer)
    without = b"\n".join(line for line in marked.split(b"\n") if not line.startswith(b"id: "))
    assert without == answer


@given(TEXTS, st.lists(st.integers(0, 200), max_size=6))
def test_each_id_continues_after_its_event(texts: list[str], places: list[int]) -> None:
    answer = framed(texts)
    whole = EventIds(RUN).mark(answer)
    events = whole.split(b"\n\n")[:-1]
    for number, event in enumerate(events, 1):
        if not event.startswith(b"id: "):
            continue
        place = place_of(event.split(b"\n")[0].removeprefix(b"id: ").decode())
        assert place is not None
        assert place.run == RUN
        ids = EventIds(RUN, place.offset)
        rest = b"".join(ids.mark(piece) for piece in cut(answer, places))
        assert rest == b"".join(later + b"\n\n" for later in events[number:])


def test_a_comment_has_no_id() -> None:
    assert EventIds(RUN).mark(KEEPALIVE) == KEEPALIVE


def test_what_is_no_id() -> None:
    assert place_of(f"{RUN}-17") == Place(RUN, 17)
    for text in (
        "",
        "7",
        RUN,
        f"{RUN}-",
        f"{RUN}--1",
        f"{RUN}-{'9' * 13}",
        f"{RUN.upper()}-1",
        f" {RUN}-1",
        f"{RUN}-1\n",
    ):
        assert place_of(text) is None
