"""The clients in `examples/`, run unchanged; the browser's is tested in tests/browser."""

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from examples.python_client import events
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests import packages
from tests.answers import parse_sse
from tests.harness import ROOT, Account, Api, Books, scripted

TEXT = "  नाका 😀 counts:\n\n“every” word\n: and no \\ more\n\tthan that. "
CLIENTS = {
    "python": [sys.executable, "python_client.py"],
    "python text": [sys.executable, "text_client.py"],
    "python json": [sys.executable, "json_client.py"],
    "python websocket": [sys.executable, "websocket_client.py"],
    "node": ["node", "node_client.mjs"],
    "node text": ["node", "text_client.mjs"],
    "node json": ["node", "json_client.mjs"],
    "node websocket": ["node", "--experimental-websocket", "--no-warnings", "websocket_client.mjs"],
    "node ui": ["node", "ui_client.mjs"],
    "curl": ["sh", "curl.sh"],
}
UNTOLD = {"node websocket": "is the key valid?"}
"""What a client says that is not told why a handshake was refused."""
TELLS_USAGE = ("python json", "node json", "node ui")


@dataclass
class Run:
    """How a client ended."""

    code: int
    said: str
    complained: str


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    program = CLIENTS[request.param][0]
    if shutil.which(program) is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(f"REQUIRE_BROWSER=1, but there is no {program}")
        pytest.skip(f"no {program}")
    if request.param == "node ui":
        packages.require("ai")
    return str(request.param)


async def run(client: str, api: Api, key: str, *messages: str, **variables: str) -> Run:
    environment = {"PATH": os.environ["PATH"], "NAKA_URL": api.url, "NAKA_KEY": key, "LANG": "C.UTF-8", **variables}
    folder = ROOT / "examples"
    if client == "node ui":
        folder = packages.FOLDER  # a module finds packages beside itself only
        shutil.copy(ROOT / "examples" / "ui_client.mjs", folder)
    if client == "curl":
        messages = tuple(
            message.replace("\\", "\\\\").replace('"', '\\"') for message in messages
        )  # it puts the words into JSON as they are
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *CLIENTS[client], *messages, cwd=folder, env=environment, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(30):
        said, complained = await process.communicate()
    return Run(process.returncode or 0, said.decode(), complained.decode())


def answer_of(client: str, done: Run) -> str:
    """The text; curl shows the events themselves."""
    if client == "curl":
        found = parse_sse(done.said.encode())
        assert found[-1] == ("done", "")
        return "".join(data for kind, data in found if kind == "message")
    return done.said.removesuffix("\n")


async def test_the_text_arrives_whole(client: str, api: Api, books: Books) -> None:
    account = await books.account()
    done = await run(client, api, account.key, scripted(text=TEXT))
    assert (done.code, done.complained) == (0, "")
    assert answer_of(client, done) == TEXT


async def test_a_refusal_is_said_in_words(client: str, api: Api, books: Books) -> None:
    done = await run(client, api, "nk_live_wrong", "hello")
    assert done.code != 0
    assert UNTOLD.get(client, "A valid API key is required") in done.said + done.complained
    used_up = await limited(books, WindowKind.DAY)
    done = await run(client, api, used_up.key, "hello")
    assert done.code != 0
    assert "limit of 0 requests per day" in done.said + done.complained, done


async def test_an_answer_that_breaks_off_is_no_answer(client: str, api: Api, books: Books) -> None:
    account = await books.account()
    done = await run(client, api, account.key, scripted(pieces=["one ", "two"], cut_after=1))
    assert done.said.startswith("data: one" if client == "curl" else "" if "json" in client else "one ")
    if client != "curl":  # it shows the error event
        assert done.code != 0
        assert "broke off" in done.complained


@pytest.mark.parametrize("client", TELLS_USAGE, indirect=True)
async def test_usage_is_told(client: str, api: Api, books: Books) -> None:
    account = await books.account()
    done = await run(client, api, account.key, scripted(text=TEXT), NAKA_USAGE="1")
    (row,) = await books.settled(account, 1)
    assert done.complained == f"{row['input_tokens']} in, {row['output_tokens']} out\n"


@pytest.mark.parametrize("client", ["python websocket", "node websocket"], indirect=True)
async def test_two_questions_go_on_one_connection(client: str, api: Api, books: Books) -> None:
    account = await books.account()
    done = await run(client, api, account.key, scripted(text="One."), scripted(text="Two."))
    assert (done.code, done.said) == (0, "One.\nTwo.\n")
    assert len(await books.settled(account, 2)) == 2


async def limited(books: Books, window: WindowKind) -> Account:
    return await books.account(limits=LimitSet((Limit(Meter.REQUESTS, window, 0),)))


def test_pythons_reader_takes_any_cut_of_a_stream() -> None:
    stream = "\ufeff: hi\r\ndata: é😀\rdata:\ndata:  b\r\n\r\nevent: x\ndata: c\n\n\r\rdata\n\ndata: lost".encode()
    expected: list[Any] = [("message", "é😀\n\n b"), ("x", "c"), ("message", "")]
    for cut in range(len(stream) + 1):
        assert list(events([stream[:cut], stream[cut:]])) == expected, cut
    assert list(events(stream[at : at + 1] for at in range(len(stream)))) == expected
