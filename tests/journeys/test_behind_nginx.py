"""Behind nginx with the shipped configuration: streams are not buffered, nothing is lost, no header is forged."""

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect

from api.auth.sign_in_throttle import FREE_ATTEMPTS
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.billing.deliveries import signed
from tests.harness import Account, Api, Books, Simulator, chat, client, scripted
from tests.journeys.callers import eventually, served
from tests.journeys.nginx import (
    MAX_BODY_BYTES,
    MAX_MESSAGES_BODY_BYTES,
    Front,
    Names,
    compose_front,
    missing,
    standalone_front,
)

pytestmark = pytest.mark.xdist_group("nginx")
MODEL = "claude-sonnet-5-5"
PIECES = [f"piece-{number} " for number in range(8)]
PACE_MS = 60


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    """What the compose file's proxy asks where the API is."""
    names = Names()
    names.start()
    yield names
    names.close()


@pytest.fixture(scope="module")
def fronts(api: Api, names: Names, run_folder: Path, worker: str) -> Iterator[dict[str, Front]]:
    """Both nginxes, in front of the one API."""
    missing("nginx")
    folder = run_folder / f"nginx-{worker}"
    with (
        compose_front(folder / "compose", api.port, names) as compose,
        standalone_front(folder / "standalone", api.port) as standalone,
    ):
        yield {"compose": compose, "standalone": standalone}


@pytest.fixture(params=["compose", "standalone"])
def front(fronts: dict[str, Front], request: pytest.FixtureRequest) -> Front:
    """One of them."""
    return fronts[request.param]


async def ask(front: Front, account: Account, message: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A question on a socket of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=front.tls)
    body = json.dumps({"message": message}).encode()
    head = f"POST /chat HTTP/1.1\r\nhost: naka\r\nauthorization: Bearer {account.key}\r\naccept-encoding: gzip\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    return reader, writer


def somebody() -> str:
    """An address of the loopback network that nobody called from before."""
    return f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}.{secrets.randbelow(250) + 2}"


@pytest.mark.slow
async def test_pieces_arrive_one_by_one(front: Front, books: Books) -> None:
    account = await books.account()
    reader, writer = await ask(front, account, scripted(pieces=PIECES, piece_delay_ms=PACE_MS))
    arrivals: list[tuple[float, bytes]] = []
    async with asyncio.timeout(20):
        while part := await reader.read(65_536):
            arrivals.append((time.monotonic(), part))
    writer.close()

    whole = b"".join(part for _, part in arrivals)
    assert b"text/event-stream" in whole
    assert b"content-encoding" not in whole.lower()
    came = [next(at for at, part in arrivals if f"data: {piece}".encode() in part) for piece in PIECES]
    gaps_ms = [1000 * (later - earlier) for earlier, later in itertools.pairwise(came)]
    print(f"{front.name}: {len(arrivals)} arrivals, gaps {[round(gap) for gap in gaps_ms]} ms")  # noqa: T201 - to be read
    assert len(set(came)) >= len(PIECES) - 2, "pieces came together, and more than a busy machine explains"
    assert came[-1] - came[0] > PACE_MS / 1000 * (len(PIECES) - 1) * 0.7, "the first was held back"


async def test_a_refusal_and_when_to_come_back_pass(front: Front, books: Books) -> None:
    account = await books.account(limits=LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 1),)))
    async with front.client() as http:
        assert (await chat(http, account)).done
        refused = await chat(http, account)

    assert refused.status == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.retry_after_s > 0
    assert refused.error is not None
    assert refused.error["request_id"] == refused.headers["x-request-id"]


async def test_a_caller_that_leaves_is_noticed(front: Front, books: Books, simulator: Simulator) -> None:
    account = await books.account()
    ref = account.key_id.hex
    reader, writer = await ask(front, account, scripted(ref=ref, pieces=["one", "two"], stall_after=1))
    async with asyncio.timeout(20):
        await reader.readuntil(b"data: one\n\n")

    left_ms = time.time_ns() // 1_000_000
    writer.transport.abort()

    entry = await served(simulator, ref, ended=True)
    assert entry["state"] == "client_gone"
    assert entry["ended_ms"] - left_ms < 1000
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["output_chars"]) == ("client_gone", len("one"))
    assert (row["input_tokens"], row["output_tokens"]) == (entry["input_tokens"], entry["output_tokens"])


async def test_the_caller_is_told_apart_and_cannot_lie_about_it(front: Front) -> None:
    guesser, other = somebody(), somebody()
    async with front.client(guesser) as http:
        wrong = [await _sign_in(http, "nk_wrong", claim=somebody()) for _ in range(FREE_ATTEMPTS + 1)]
    async with front.client(other) as http:
        right = await _sign_in(http, "nk_wrong", claim=guesser)

    assert [answer.status_code for answer in wrong] == [401] * FREE_ATTEMPTS + [429]
    assert right.status_code == 401
    assert guesser in front.log.read_text()


async def test_who_signs_in_again_and_again_is_slowed_down_before_the_api(front: Front) -> None:
    async with front.client(somebody()) as http:
        answers = [await http.get("/sign-in") for _ in range(23)]
        assert (await http.get("/healthz")).status_code == 200

    over = answers[-1]
    assert [answer.status_code for answer in answers[:21]] == [200] * 21
    assert (over.status_code, over.headers["content-type"]) == (429, "application/problem+json")
    assert (over.json()["code"], over.headers["retry-after"]) == ("too_many_attempts", "2")


async def test_a_cookie_is_for_tls_where_there_is_tls(front: Front, books: Books) -> None:
    account = await books.account()
    async with front.client(somebody()) as http:
        answer = await _sign_in(http, account.key, claim=somebody())

    assert answer.status_code == 303, answer.text
    assert ("secure" in answer.headers["set-cookie"].lower()) == (front.tls is not None)


async def _sign_in(http: httpx2.AsyncClient, key: str, *, claim: str) -> httpx2.Response:
    """A form that our own page sent, by a caller who says that it calls for `claim`, by TLS; a refusal's own page."""
    headers = {"sec-fetch-site": "same-origin", "x-forwarded-for": claim, "x-forwarded-proto": "https"}
    answer = await http.post("/sign-in", data={"key": key}, headers=headers)
    path = answer.headers.get("location", "")
    return await http.get(path, headers=headers) if path.startswith("/sign-in") else answer


async def test_a_body_as_large_as_allowed_arrives_and_a_larger_one_is_refused(front: Front) -> None:
    async with front.client() as http:
        headers = {"content-type": "application/json"}
        fits = await http.post("/webhooks/razorpay", content=b" " * MAX_BODY_BYTES, headers=headers)
        larger = await http.post("/webhooks/razorpay", content=b" " * (MAX_BODY_BYTES + 1), headers=headers)

    assert (fits.status_code, fits.json()["code"]) == (401, "unauthenticated")
    assert (larger.status_code, larger.json()["code"]) == (413, "body_too_large")
    assert larger.headers["content-type"] == "application/problem+json"


@pytest.mark.slow
async def test_a_prompt_as_large_as_anthropic_takes_arrives_and_its_answer_streams(front: Front, books: Books) -> None:
    account = await books.account()
    turns = [{"role": "user", "content": scripted(pieces=PIECES, piece_delay_ms=PACE_MS)}]
    body = json.dumps({"model": MODEL, "max_tokens": 100, "stream": True, "messages": turns}).encode()
    large = body[:-1] + b" " * (MAX_MESSAGES_BODY_BYTES - len(body)) + b"}"
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    async with front.client() as http:
        nobody = await http.post("/v1/messages", content=large, headers=headers)
        headers |= account.headers
        larger = await http.post("/v1/messages", content=large + b" ", headers=headers)
        elsewhere = await http.post("/v1/messages/batches", content=b" " * (MAX_BODY_BYTES + 1), headers=headers)
        arrivals = list[float]()
        async with http.stream("POST", "/v1/messages", content=large, headers=headers) as answer:
            said = b""
            async for part in answer.aiter_raw():
                arrivals.append(time.monotonic())
                said += part

    assert (nobody.status_code, nobody.json()["error"]["type"]) == (401, "authentication_error")
    assert (larger.status_code, larger.json()["error"]["type"]) == (413, "request_too_large")
    assert larger.headers["x-should-retry"] == "false"
    assert elsewhere.status_code == 413
    assert answer.status_code == 200, said
    assert "content-encoding" not in answer.headers
    assert said.endswith(b'data: {"type":"message_stop"}\n\n'), said[-200:]
    assert arrivals[-1] - arrivals[0] > PACE_MS / 1000 * (len(PIECES) - 1) * 0.7, "the first piece was held back"
    (row,) = await books.settled(account, 1)
    assert row["outcome"] == "completed"


async def test_a_webhook_arrives_byte_for_byte(front: Front, books: Books) -> None:
    event_id = f"evt_{secrets.token_hex(7)}"
    note = secrets.token_hex(4)  # a body that is known is no new event
    body = f'{{ "event":"payment.captured",\r\n\t"note" : "₹ \\u20b9  é {note}",  "payload":{{}}}}\n\n'.encode()
    async with front.client() as http:
        answer = await http.post("/webhooks/razorpay", content=body, headers=signed(body, event_id))

    assert answer.status_code == 200, answer.text
    (row,) = await books.fetch("SELECT body FROM webhook_events WHERE event_id = $1", event_id)
    assert row["body"] == body


async def test_the_operators_numbers_stay_inside(front: Front, api: Api) -> None:
    async with front.client() as http, client(api.url) as inside:
        assert (await http.get("/metrics")).status_code == 404
        assert (await inside.get("/metrics")).status_code == 200


@pytest.mark.slow
async def test_the_api_is_found_again_where_it_went(fronts: dict[str, Front], names: Names) -> None:
    async with fronts["compose"].client() as http:
        assert (await http.get("/healthz")).status_code == 200
        names.address = "127.0.0.9"  # nobody
        away = await eventually(lambda: _answer(http, 503))
        names.address = "127.0.0.1"
        await eventually(lambda: _answer(http, 200))

    assert away.headers["content-type"] == "application/problem+json"
    assert away.headers["retry-after"] == "5"
    assert away.json()["code"] == "unavailable"


async def _answer(http: httpx2.AsyncClient, status: int) -> httpx2.Response | None:
    answer = await http.get("/healthz")
    await asyncio.sleep(0.1)
    return answer if answer.status_code == status else None


async def test_http_2_is_offered_over_tls(fronts: dict[str, Front]) -> None:
    offered = fronts["standalone"].tls
    assert offered is not None
    offered.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", fronts["standalone"].port, ssl=offered)
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.transport.abort()

    assert chosen == "h2"


@pytest.mark.slow
async def test_a_websocket_goes_through(front: Front, books: Books) -> None:
    account = await books.account()
    url = f"{front.url.replace('http', 'ws')}/chat"
    asked = json.dumps({"message": scripted(pieces=PIECES, first_delay_ms=0, piece_delay_ms=PACE_MS)})
    headers = account.headers | {"origin": front.url}
    async with connect(url, additional_headers=headers, ssl=front.tls, proxy=None) as socket:
        for _ in range(2):
            arrived = list[float]()
            await socket.send(asked)
            while "done" not in (frame := json.loads(await socket.recv())):
                assert frame == {"text": PIECES[len(arrived)]}
                arrived.append(time.monotonic())
            assert len(arrived) == len(PIECES)
            assert arrived[-1] - arrived[0] > PACE_MS / 1000 * (len(PIECES) - 2), "each as it came"
    assert len(await books.settled(account, 2)) == 2
