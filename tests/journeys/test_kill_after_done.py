"""Usage is committed before the client receives `done`, even if client and process die in that moment.

A few rounds here; `KILL_ROUNDS=200 pytest tests/journeys/test_kill_after_done.py` for many.
"""

import json
import os
import random
import socket
from pathlib import Path

import pytest

from sandbox.daemon import free_port
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Api, Books, Simulator, scripted

ROUNDS = int(os.environ.get("KILL_ROUNDS", "4"))
DONE = b"event: done\ndata: \n\n"


@pytest.mark.chaos
async def test_a_request_that_was_done_survives_the_death_of_both_sides(
    books: Books, simulator: Simulator, story_environment: dict[str, str], run_folder: Path
) -> None:
    account = await books.account()
    ref = account.key_id.hex
    shuffled = random.Random(7)
    for round_number in range(ROUNDS):
        api = Api(story_environment, run_folder / f"killed-{account.key_id.hex[:8]}.log", port=free_port())
        try:
            api.await_ready()
            message = scripted(
                ref=ref,
                words=shuffled.randint(1, 60),
                cache_read_input_tokens=shuffled.randint(0, 50),
                cache_creation_5m=shuffled.randint(0, 50),
                cache_creation_1h=shuffled.randint(0, 50),
                coalesce=shuffled.random() < 0.5,
            )
            _until_done(api, account, message)
        finally:
            api.kill()
        assert len(await books.requests(account)) == round_number + 1

    rows = await books.requests(account)
    served = simulator.ledger(ref)
    assert [row["state"] for row in rows] == ["settled"] * ROUNDS
    assert [row["source"] for row in rows] == ["final"] * ROUNDS
    assert [[row[name] for name in TOKEN_FIELDS] for row in rows] == [
        [entry[name] for name in LEDGER_FIELDS] for entry in served
    ]
    meters = await books.sums("usage_meters", account.tenant_id)
    assert meters == await books.sums("usage_daily", account.tenant_id)
    assert meters == await books.sums("usage_requests", account.tenant_id)
    assert meters["requests"] == ROUNDS


def _until_done(api: Api, account: Account, message: str) -> None:
    """Reads up to the last byte of `done`, and hangs up with a reset, in the same breath as the process dies."""
    body = json.dumps({"message": message}).encode()
    head = (
        f"POST /chat HTTP/1.1\r\nhost: naka\r\nauthorization: Bearer {account.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        answer = b""
        while DONE not in answer:
            chunk = connection.recv(65536)
            assert chunk, answer
            answer += chunk
        api.process.kill()
