"""A user asks, text is streamed, and the stored usage equals the provider's."""

import httpx2

from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Books, Simulator, chat, scripted


async def test_usage_is_what_the_provider_served(http: httpx2.AsyncClient, books: Books, simulator: Simulator) -> None:
    account = await books.account()
    ref = account.key_id.hex

    first = await chat(http, account, scripted("Hello, toll post!", ref=ref))
    second = await chat(
        http,
        account,
        scripted(ref=ref, words=33, cache_read_input_tokens=5, cache_creation_5m=7, cache_creation_1h=11),
    )

    assert first.status == 200
    assert first.done
    assert "simulator" in first.text
    assert second.done
    served = simulator.ledger(ref)
    assert [row["state"] for row in served] == ["completed", "completed"]
    usage = (await http.get("/v1/usage", headers=account.headers)).json()
    assert usage["totals"]["requests"] == 2
    for ours, theirs in zip(TOKEN_FIELDS, LEDGER_FIELDS, strict=True):
        assert usage["totals"][ours] == sum(row[theirs] for row in served), ours
    assert usage["totals"]["cost_nano_usd"] == sum(
        row["input_tokens"] * 3_000
        + row["output_tokens"] * 15_000
        + row["cache_read_input_tokens"] * 300
        + row["cache_creation_5m"] * 3_750
        + row["cache_creation_1h"] * 6_000
        for row in served
    )
    (day,) = usage["days"]
    assert day["model"] == "claude-sonnet-4-6"
    assert {name: day[name] for name in usage["totals"]} == usage["totals"]
    rows = await books.requests(account)
    assert [row["upstream_request_id"] for row in rows] == [row["request_id"] for row in served]
    assert [row["upstream_message_id"] for row in rows] == [row["message_id"] for row in served]
    assert {row["source"] for row in rows} == {"final"}
