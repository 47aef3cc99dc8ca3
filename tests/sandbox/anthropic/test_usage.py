"""Usage: classes, caches, images, inferences, and what the provider would bill."""

from datetime import UTC, datetime
from typing import Any

import anthropic
import pytest

from sandbox.anthropic import REQUEST_OVERHEAD_TOKENS, count_text
from sandbox.anthropic.requests.media import PDF_PAGE_TOKENS, REMOTE_DOCUMENT_TOKENS
from sandbox.anthropic.tokens import filler
from tests.sandbox.anthropic.bench import OTHER_KEY, TOOL, Bench, Json, fresh, marker, png, turns
from tests.sandbox.anthropic.test_refusals import PDF, document, image, user
from tests.sandbox.test_anthropic import chat, order

CLASSES = ("input_tokens", "cache_read_input_tokens", "cache_creation_5m", "cache_creation_1h", "output_tokens")
TEXT: Json = {"type": "text", "text": "That is all."}
LONG = 2_000


def counts(row: Json) -> tuple[int, ...]:
    return tuple(row[name] for name in CLASSES)


def total(rows: list[Json]) -> tuple[int, ...]:
    charged = [counts(row) for row in rows if row["charged"]]
    return tuple(map(sum, zip(*charged, strict=True)))


def usage_counts(usage: Json) -> tuple[int, ...]:
    split = usage["cache_creation"]
    return (
        usage["input_tokens"],
        usage["cache_read_input_tokens"],
        split["ephemeral_5m_input_tokens"],
        split["ephemeral_1h_input_tokens"],
        usage["output_tokens"],
    )


async def test_one_row_for_a_plain_answer(bench: Bench) -> None:
    ref, prompt = order(words=7, thinking=3)
    fields: Json = {"model": "claude-opus-5-5", "speed": "fast", "inference_geo": "us"}
    answer = (await bench.post(chat(prompt, **fields))).json()
    assert (answer["usage"]["speed"], answer["usage"]["inference_geo"]) == ("fast", "us")
    (row,) = await bench.rows(ref)
    assert counts(row) == usage_counts(answer["usage"])
    assert {name: row[name] for name in ("type", "iteration", "model", "speed", "inference_geo", "service_tier")} == {
        "type": "message",
        "iteration": 0,
        "model": "claude-opus-5-5",
        "speed": "fast",
        "inference_geo": "us",
        "service_tier": "standard",
    }
    assert (row["thinking_tokens"], row["charged"], row["state"]) == (3, True, "completed")
    assert row["message_id"] == answer["id"]
    by_id = await bench.http.get("/_sim/inferences", params={"request_id": row["request_id"]})
    assert by_id.json()["items"] == [row]


async def test_what_is_free(bench: Bench) -> None:
    ref, prompt = order(refusal="empty")
    refused = (await bench.post(chat(prompt))).json()
    assert (refused["stop_reason"], refused["content"], refused["usage"]["output_tokens"]) == ("refusal", [], 0)
    assert refused["usage"]["input_tokens"] > 0
    (row,) = await bench.rows(ref)
    assert (row["charged"], row["input_tokens"]) == (False, refused["usage"]["input_tokens"])
    ref, prompt = order(status=529)
    await bench.post(chat(prompt))
    assert await bench.rows(ref) == []
    ref, prompt = order(refusal="partial", words=3)
    await bench.post(chat(prompt))
    (row,) = await bench.rows(ref)
    assert (row["charged"], row["output_tokens"]) == (True, 3)


@pytest.mark.parametrize("stream", [True, False])
async def test_warming_a_cache_says_nothing(bench: Bench, *, stream: bool) -> None:
    text = f"{fresh()} {filler(LONG)}"
    body = chat(text, max_tokens=0, cache_control={"type": "ephemeral", "ttl": "1h"})
    ref = fresh()
    answer = await bench.post(body | {"stream": stream}, x_sandbox_script=f'{{"ref": "{ref}"}}')
    assert answer.status_code == 200
    (row,) = await bench.rows(ref)
    assert counts(row) == (0, 0, 0, count_text(text) + REQUEST_OVERHEAD_TOKENS, 0)
    if not stream:
        assert (answer.json()["stop_reason"], answer.json()["content"]) == ("max_tokens", [])


# ------------------------------------------------------------------------------------------------- caches


class Cached:
    """Requests with a cache of their own."""

    def __init__(self, bench: Bench, **fields: Any) -> None:
        self.bench = bench
        self.fields = fields
        self.start = fresh()

    def block(self, text: str, ttl: str | None = "5m") -> Json:
        mark = {} if ttl is None else {"cache_control": {"type": "ephemeral", "ttl": ttl}}
        return {"type": "text", "text": f"{self.start} {text} {filler(LONG)}"} | mark

    async def ask(self, *blocks: Json, **headers: str) -> tuple[int, int, int, int]:
        body = chat("", system=list(blocks), messages=turns("hello"), **self.fields)
        usage = (await self.bench.post(body, **headers)).json()["usage"]
        read, five, hour = usage_counts(usage)[1:4]
        return usage["input_tokens"] // LONG, read // LONG, five // LONG, hour // LONG


async def test_a_cache_is_written_and_read(bench: Bench) -> None:
    cached = Cached(bench)
    one, two, three = cached.block("a"), cached.block("b"), cached.block("c")
    assert await cached.ask(one) == (0, 0, 1, 0)
    assert await cached.ask(one) == (0, 1, 0, 0)
    assert await cached.ask(one, two) == (0, 1, 1, 0)
    assert await cached.ask(cached.block("a", None), cached.block("b", None), three) == (0, 2, 1, 0)
    assert await cached.ask(cached.block("a", None)) == (1, 0, 0, 0)
    assert await cached.ask(two, one) == (0, 0, 2, 0)


async def test_caches_belong_to_a_workspace_and_a_model(bench: Bench) -> None:
    cached = Cached(bench)
    assert await cached.ask(cached.block("a")) == (0, 0, 1, 0)
    assert await cached.ask(cached.block("a"), x_api_key=OTHER_KEY) == (0, 0, 1, 0)
    cached.fields = {"model": "claude-opus-5-5"}
    assert await cached.ask(cached.block("a")) == (0, 0, 1, 0)
    assert await cached.ask(cached.block("a")) == (0, 1, 0, 0)


async def test_caches_expire_by_the_clock(bench: Bench) -> None:
    async def pass_by(seconds: float) -> None:
        assert (await bench.http.post("/_sim/clock", json={"advance_s": seconds})).status_code == 200

    cached = Cached(bench)
    hour, five = cached.block("a", "1h"), cached.block("b")
    assert await cached.ask(hour, five) == (0, 0, 1, 1)
    await pass_by(200)
    assert await cached.ask(hour, five) == (0, 2, 0, 0)
    await pass_by(200)
    assert await cached.ask(hour, five) == (0, 2, 0, 0)  # the read renewed it
    await pass_by(301)
    assert await cached.ask(hour, five) == (0, 1, 1, 0)
    await pass_by(3601)
    assert await cached.ask(hour, five) == (0, 0, 1, 1)


async def test_a_short_prefix_is_not_cached(bench: Bench) -> None:
    fields: Json = {"system": [{"type": "text", "text": "short", "cache_control": {"type": "ephemeral"}}]}
    for _ in range(2):
        usage = (await bench.post(chat("hello", **fields))).json()["usage"]
        assert usage_counts(usage)[1:4] == (0, 0, 0)


async def test_a_conversation_grows_in_the_cache(bench: Bench) -> None:
    start, top = f"{fresh()} {filler(LONG)}", {"type": "ephemeral"}
    said = turns(start)
    first = (await bench.post(chat("", messages=said, cache_control=top))).json()["usage"]
    said += [*turns("", "indeed")[1:], {"role": "user", "content": f"more {filler(LONG)}"}]
    second = (await bench.post(chat("", messages=said, cache_control=top))).json()["usage"]
    assert second["cache_read_input_tokens"] == first["cache_creation_input_tokens"] > LONG
    assert second["cache_creation_input_tokens"] > LONG
    assert second["input_tokens"] == 0


# -------------------------------------------------------------------------------------------- what weighs


@pytest.mark.parametrize(
    ("block", "model", "tokens"),
    [
        (png(280, 280), "claude-sonnet-4-6", 100),
        (png(281, 1), "claude-sonnet-4-6", 11),
        (png(8000, 8000), "claude-sonnet-4-6", 1568),
        (png(8000, 8000), "claude-opus-5-5", 4784),
        (image(type="url", url="https://x"), "claude-opus-5-5", 4784),
        (image(type="base64", media_type="image/webp", data="AAAA"), "claude-sonnet-4-6", 1568),
        (document(type="base64", media_type="application/pdf", data=PDF), "claude-opus-5-5", PDF_PAGE_TOKENS),
        (document(type="file", file_id="f"), "claude-opus-5-5", REMOTE_DOCUMENT_TOKENS),
        (document(type="text", media_type="text/plain", data="four"), "claude-opus-5-5", 1),
    ],
)
async def test_images_and_documents(bench: Bench, block: Json, model: str, tokens: int) -> None:
    usage = (await bench.post(chat("") | user(block) | {"model": model})).json()["usage"]
    assert usage["input_tokens"] == REQUEST_OVERHEAD_TOKENS + tokens


async def test_count_tokens_is_what_messages_says(claude: anthropic.AsyncAnthropic) -> None:
    body: Any = {"model": "claude-opus-5-5", "tools": [TOOL], "system": "Be brief."} | user(png(300, 300))
    counted = await claude.messages.count_tokens(**body)
    answered = await claude.messages.create(**body, max_tokens=9)
    assert counted.input_tokens == answered.usage.input_tokens


# --------------------------------------------------------------------------------------------- inferences


async def test_a_search_is_two_inferences(bench: Bench) -> None:
    ref, prompt = order(blocks=[{"type": "web_search", "query": "q"}, {"type": "web_search", "error": "x"}, TEXT])
    parsed = await bench.stream(prompt)
    start, final = parsed[0][1]["message"]["usage"], parsed[-2][1]["usage"]
    assert final["input_tokens"] > 3 * start["input_tokens"]
    assert final["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 0}
    assert "iterations" not in final
    rows = await bench.rows(ref)
    assert [(row["type"], row["iteration"], row["web_searches"]) for row in rows] == [
        ("message", 0, 1),
        ("message", 1, 0),
        ("message", 2, 0),
    ]
    assert total(rows)[0] == final["input_tokens"]
    assert total(rows)[4] == final["output_tokens"]
    (entry,) = await bench.entries(ref)
    assert counts(entry) == total(rows)


async def test_a_compaction_is_billed_beside_the_top_level(bench: Bench) -> None:
    ref, prompt = order(blocks=[{"type": "compaction", "content": "In short."}, TEXT])
    usage = (await bench.post(chat(prompt))).json()["usage"]
    compaction, message = await bench.rows(ref)
    assert [entry["type"] for entry in usage["iterations"]] == ["compaction", "message"]
    assert counts(message) == usage_counts(usage)
    assert (compaction["type"], compaction["output_tokens"]) == ("compaction", count_text("In short."))
    assert compaction["input_tokens"] > message["input_tokens"]
    edits: Json = {"edits": [{"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 500}}]}
    body = chat(filler(600), context_management=edits)
    answer = (await bench.post(body, anthropic_beta="compact-2026-01-12")).json()
    assert [block["type"] for block in answer["content"]] == ["compaction", "text"]
    assert answer["context_management"] == {"applied_edits": []}


@pytest.mark.parametrize("before", [[], [TEXT]])
async def test_a_fallback_serves(bench: Bench, before: list[Json]) -> None:
    models = ("claude-fable-5-2", "claude-opus-5-5")
    fallback = {"type": "fallback", "from": {"model": models[0]}, "to": {"model": models[1]}}
    ref, prompt = order(blocks=[*before, fallback, TEXT])
    answer = (await bench.post(chat(prompt, model=models[0]))).json()
    assert answer["model"] == models[1]
    declined, served = await bench.rows(ref)
    assert [(row["type"], row["model"]) for row in (declined, served)] == [
        ("message", models[0]),
        ("fallback_message", models[1]),
    ]
    assert declined["charged"] == bool(before)
    assert counts(served) == usage_counts(answer["usage"])


async def test_an_advisor_has_its_own_model(bench: Bench) -> None:
    ref, prompt = order(blocks=[{"type": "advisor", "model": "claude-fable-5-2", "text": "Count twice."}, TEXT])
    usage = (await bench.post(chat(prompt))).json()["usage"]
    rows = await bench.rows(ref)
    assert [(row["type"], row["model"]) for row in rows] == [
        ("message", "claude-sonnet-4-6"),
        ("advisor_message", "claude-fable-5-2"),
        ("message", "claude-sonnet-4-6"),
    ]
    assert usage_counts(usage) == total([rows[0], rows[2]])
    assert rows[1]["output_tokens"] == count_text("Count twice.")


async def test_scripted_iterations(bench: Bench) -> None:
    iterations: list[Json] = [
        {"type": "message", "model": "claude-fable-5-2", "input_tokens": 50, "output_tokens": 5, "charged": False},
        {"type": "compaction", "input_tokens": 70, "output_tokens": 7},
        {
            "type": "fallback_message",
            "model": "claude-opus-5",
            "input_tokens": 11,
            "output_tokens": 20,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 9,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
            "web_searches": 2,
        },
    ]
    ref, prompt = order(iterations=iterations, words=10)
    parsed = await bench.stream(prompt)
    usage = parsed[-2][1]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cache_creation_input_tokens"]) == (11, 20, 9)
    assert [entry["type"] for entry in usage["iterations"]] == ["message", "compaction", "fallback_message"]
    rows = await bench.rows(ref)
    assert [row["charged"] for row in rows] == [False, True, True]
    assert total(rows) == (81, 3, 4, 5, 27)
    assert rows[2]["web_searches"] == 2


@pytest.mark.parametrize("events", range(2, 24))
async def test_an_interrupted_request_bills_what_had_begun(bench: Bench, events: int) -> None:
    blocks = [TEXT, {"type": "web_search", "query": "q"}, TEXT]
    whole_ref, prompt = order(blocks=blocks)
    await bench.post(chat(prompt, stream=True))
    whole = await bench.rows(whole_ref)
    ref, prompt = order(blocks=blocks, end_after=events, count="events")
    await bench.post(chat(prompt, stream=True))
    rows = await bench.rows(ref)
    (entry,) = await bench.entries(ref)
    assert counts(entry) == total(rows)
    assert 1 <= len(rows) <= 2
    for row, complete in zip(rows, whole, strict=False):
        assert row["output_tokens"] <= complete["output_tokens"]
    assert rows[0]["web_searches"] == int(len(rows) == 2)


async def test_claimed_numbers_are_billed(bench: Bench) -> None:
    claimed: Json = {"input_tokens": 4, "cache_creation_1h": 6, "output_tokens": 100, "web_searches": 3}
    modifiers: Json = {"speed": "fast", "inference_geo": "us", "service_tier": "priority"}
    ref, prompt = order(words=10, **claimed, **modifiers)
    usage = (await bench.post(chat(prompt))).json()["usage"]
    assert usage["server_tool_use"] == {"web_search_requests": 3, "web_fetch_requests": 0}
    assert {name: usage[name] for name in modifiers} == modifiers
    (row,) = await bench.rows(ref)
    assert {name: row[name] for name in (*claimed, *modifiers)} == {**claimed, **modifiers}


async def test_the_report_has_every_model_and_class(bench: Bench) -> None:
    await bench.http.delete("/_sim/ledger")
    advised = [{"type": "advisor", "model": "claude-fable-5-2", "text": "x"}, {"type": "web_search"}, TEXT]
    await bench.post(chat(marker(blocks=advised)))
    await bench.post(chat("hello", model="claude-opus-5-5", speed="fast"))
    await bench.post(chat(marker(refusal="empty"), model="claude-haiku-5-5"))
    rows = (await bench.http.get("/_sim/inferences")).json()["items"]
    today = f"{datetime.now(UTC).date()}T00:00:00Z"
    query = f"starting_at={today}&group_by[]=model&group_by[]=speed"
    answer = await bench.http.get(
        f"/v1/organizations/usage_report/messages?{query}", headers={"x-api-key": "admin-sim-key"}
    )
    results = {(r["model"], r["speed"]): r for bucket in answer.json()["data"] for r in bucket["results"]}
    assert set(results) == {
        ("claude-fable-5-2", "standard"),
        ("claude-opus-5-5", "fast"),
        ("claude-sonnet-4-6", "standard"),
    }
    sonnet = results["claude-sonnet-4-6", "standard"]
    assert sonnet["server_tool_use"] == {"web_search_requests": 1}
    billed = sum(row["input_tokens"] for row in rows if row["model"] == "claude-sonnet-4-6")
    assert sonnet["uncached_input_tokens"] == billed
