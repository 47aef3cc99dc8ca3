"""The simulator knows after a restart what it billed, and follows the clock of a file."""

from pathlib import Path

import httpx2

from core.clock import follow_test_clock, stop_following
from sandbox.anthropic import create_app
from sandbox.anthropic.usage_report import admin_key_of

KEY = "k"
HEADERS = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
BODY = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": '[[sim {"input_tokens": 500, "output_tokens": 40}]]'}],
}


def _client(rows: Path) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=create_app(KEY, rows=rows)), base_url="http://sim")


async def _reported(http: httpx2.AsyncClient) -> int:
    """The output of all days in the usage report."""
    query = {"starting_at": "2020-01-01T00:00:00Z", "limit": "31"}
    total, page = 0, None
    while True:
        asked = query | ({} if page is None else {"page": page})
        headers = HEADERS | {"x-api-key": admin_key_of(KEY)}
        answer = (await http.get("/v1/organizations/usage_report/messages", params=asked, headers=headers)).json()
        total += sum(int(row["output_tokens"]) for day in answer["data"] for row in day["results"])
        page = answer["next_page"]
        if page is None:
            return total


async def test_rows_survive_a_restart_and_a_torn_last_line(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    async with _client(rows) as first:
        for _ in range(2):
            assert (await first.post("/v1/messages", json=BODY, headers=HEADERS)).status_code == 200
        assert await _reported(first) == 80
    with rows.open("ab") as file:
        file.write(b'{"seq": 3, "requ')
    async with _client(rows) as second:
        assert await _reported(second) == 80
        assert (await second.post("/v1/messages", json=BODY, headers=HEADERS)).status_code == 200
    async with _client(rows) as third:
        assert await _reported(third) == 120
        assert [row["seq"] for row in (await third.get("/_sim/inferences")).json()["items"]] == [1, 2, 3]
        await third.delete("/_sim/ledger")
    assert rows.read_bytes() == b""


async def test_its_caches_expire_by_the_clock_of_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    text = {"type": "text", "text": "a word " * 5_000, "cache_control": {"type": "ephemeral"}}
    cached = BODY | {"messages": [{"role": "user", "content": [text]}]}
    read = []
    try:
        async with _client(tmp_path / "rows") as http:
            for ahead_ms in (0, 299_000, 600_000):  # a read renews the five minutes
                file.write_text(str(ahead_ms))
                follow_test_clock(file)
                answer = await http.post("/v1/messages", json=cached, headers=HEADERS)
                read.append(answer.json()["usage"]["cache_read_input_tokens"] > 0)
    finally:
        stop_following()
    assert read == [False, True, False]
