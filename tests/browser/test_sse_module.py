"""The reader of server-sent events by itself: every cut of every stream, and the browser's own parser as the judge."""

import base64
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

# name: (bytes, the events they hold as [type, data])
STREAMS: dict[str, tuple[bytes, list[list[str]]]] = {
    "LF": (b"data: a\n\ndata: b\n\n", [["message", "a"], ["message", "b"]]),
    "CR": (b"data: a\r\rdata: b\r\r", [["message", "a"], ["message", "b"]]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [["message", "a"], ["message", "b"]]),
    "line ends mixed": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n",
                        [["message", "a"], ["message", "b"], ["message", "c"]]),
    "several lines": (b"data: eins\ndata: zwei\r\ndata:\rdata: vier\n\n", [["message", "eins\nzwei\n\nvier"]]),
    "characters of 2 to 4 bytes": ("event: é\ndata: é€😀नाका\u2028\x85x\n\n".encode(), [["é", "é€😀नाका\u2028\x85x"]]),
    "broken UTF-8": (b"data: \xff\xf0\x9f!\n\n", [["message", "��!"]]),
    "comments": (b": beat\n\n:\n:data: x\ndata: a\n: in the middle\ndata: b\n\n", [["message", "a\nb"]]),
    "BOM": (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [["message", "a"], ["message", "b"]]),
    "a second BOM is text": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n", [["message", "\ufeffb"]]),
    "fields without colon": (b"data\n\ndata\ndata\n\nevent\ndata: a\n\n",
                             [["message", ""], ["message", "\n"], ["message", "a"]]),
    "one blank goes": (b"data:a\n\ndata: a\n\ndata:  a \n\ndata:\ta\n\n",
                       [["message", "a"], ["message", "a"], ["message", " a "], ["message", "\ta"]]),
    "colons in the value": (b"data: a: b:c\n\ndata::\n\n", [["message", "a: b:c"], ["message", ":"]]),
    "done": (b"data: a\n\nevent: done\ndata: \n\n", [["message", "a"], ["done", ""]]),
    "no data, no event": (b"event: lost\n\nid: 1\n\ndata: a\n\n", [["message", "a"]]),
    "type is of one event": (b"event: x\ndata: a\n\ndata: b\n\n", [["x", "a"], ["message", "b"]]),
    "last type wins": (b"event: y\ndata: a\nevent: x\n\n", [["x", "a"]]),
    "unknown fields": (b"dat: a\nDATA: a\n data: a\ndata : a\nretry: 60000\nfoo\ndata: b\n\n", [["message", "b"]]),
    "unclosed at the end": (b"data: a\n\ndata: b\n", [["message", "a"]]),
    "unclosed line at the end": (b"data: a\n\ndata: b", [["message", "a"]]),
    "CR as the very last byte": (b"data: a\r\n\r", [["message", "a"]]),
    "blank lines only": (b"\n\r\n\r\r\n\n", []),
    "nothing": (b"", []),
}  # fmt: skip


_EVERY_CUT = """async ([bytes, expected]) => {
    const { readEvents } = await import("/static/sse.js");
    const all = new Uint8Array(bytes);
    const cuts = [all.length ? Array.from(all, (_, i) => all.slice(i, i + 1)) : []];  // every byte by itself
    for (let a = 0; a <= all.length; a++)
        for (let b = a; b <= all.length; b++) cuts.push([all.slice(0, a), all.slice(a, b), all.slice(b)]);
    const wrong = [];
    for (const chunks of cuts) {
        const stream = new ReadableStream({ start(c) { chunks.forEach((x) => c.enqueue(x)); c.close(); } });
        const events = [];
        for await (const { type, data } of readEvents(stream)) events.push([type, data]);
        if (JSON.stringify(events) !== JSON.stringify(expected))
            wrong.push([chunks.map((c) => c.length), events]);
    }
    return wrong.slice(0, 3);
}"""


@pytest.mark.slow
def test_sse_reader_gives_the_same_events_wherever_the_stream_is_cut(tab: "Page", page_url: str) -> None:
    tab.goto(page_url)
    wrong = {name: tab.evaluate(_EVERY_CUT, [list(data), expected]) for name, (data, expected) in STREAMS.items()}
    assert wrong == {name: [] for name in STREAMS}


@pytest.mark.slow
def test_sse_expectations_are_those_of_the_browsers_own_parser(tab: "Page", page_url: str) -> None:
    tab.goto(page_url)
    for name, (data, expected) in STREAMS.items():
        encoded = base64.urlsafe_b64encode(data).decode()
        events = tab.evaluate(
            """([path, types]) => new Promise((done) => {
                const events = [], source = new EventSource(path);
                for (const type of types) source.addEventListener(type, (e) => events.push([e.type, e.data]));
                source.onerror = () => { source.close(); done(events); };  // the end of the stream
            })""",
            [f"/stub/raw/{encoded}", sorted({kind for kind, _ in expected} | {"message", "lost"})],
        )
        assert events == expected, name


def test_sse_reader_gives_up_on_a_silent_stream_and_closes_it(tab: "Page", page_url: str) -> None:
    tab.goto(page_url)
    story = tab.evaluate(
        """async () => {
            const { readEvents } = await import("/static/sse.js");
            const story = [];
            const stream = new ReadableStream({
                start(c) { c.enqueue(new TextEncoder().encode("data: a\\n\\n")); },
                cancel() { story.push("closed"); },
            });
            try { for await (const { data } of readEvents(stream, 100)) story.push(data); }
            catch (error) { story.push(error.message); }
            return story;
        }"""
    )
    assert story == ["a", "closed", "The stream fell silent."]
