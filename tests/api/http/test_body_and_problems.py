"""Bad input is a 4xx problem and stores nothing.

Over raw sockets, to a server with a body limit of 4096 bytes: an HTTP client would not send most of this.
"""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.tenancy.accounts import find_key, revoke_key
from core.tenancy.keys import generate_key
from core.tenancy.principal import Scope
from tests import servers
from tests.api.raw import CANARY, JSON_TYPE, chunked, head, post, send, sized
from tests.harness import ACTOR, Account, Api, Books, Simulator, environment, running

MAX_BYTES = 4096


@pytest.fixture(scope="module")
def database(shared_servers: servers.Servers, worker: str, database_template: str) -> Iterator[str]:
    """A database for this module."""
    name = f"naka_bodies_{worker}"
    yield servers.application(servers.create_database(shared_servers.postgres, name, template=database_template))
    servers.drop_database(shared_servers.postgres, name)


@pytest.fixture(scope="module")
def api(database: str, redis_url: str, run_folder: Path, worker: str) -> Iterator[Api]:
    """The server, and a provider for the valid requests."""
    simulator = Simulator()
    log = run_folder / f"bodies-{worker}.log"
    settings = environment(database, redis_url, simulator.url, REQUEST_BODY_MAX_BYTES=str(MAX_BYTES))
    with running(Api(settings, log)) as made:
        yield made
    simulator.stop()
    assert CANARY not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.fixture
async def books(database: str) -> AsyncIterator[Books]:
    books = Books(database)
    yield books
    await books.close()


@pytest.fixture
async def account(books: Books) -> AsyncIterator[Account]:
    """A user for whom the test must store nothing."""
    account = await books.account()
    yield account
    assert [row["state"] for row in await books.requests(account)] == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"xylophone"',
        b"{}",
        b'{"message": null}',
        b'{"message": 7}',
        b'{"message": ["xylophone"]}',
        b'{"message": ""}',
        b'{"message": " \\n\\t "}',
        b'{"message": "\\u00a0\\u3000"}',
        b'{"message": "xylophone", "system": 7}',
        b'{"message": "xylophone", "system": {"xylophone": 1}}',
        b'{"message": "xylophone", "model": ""}',
        b'{"message": "xylophone", "model": 7}',
        b'{"message": "hi", "model": "' + b"xylophone" * 12 + b'"}',
        b'{"message": "xylophone \xff"}',
        b'{"message": "xylophone \xed\xa0\x80"}',
        b'{"message": "xylophone \\ud800"}',
        b'{"message": "xylophone \\udc00\\ud800"}',
        b'{"message": "hi", "system": "xylophone \\ud800"}',
        b'{"message": "hi", "model": "xylophone \\ud800"}',
        b'{"message": "xylophone", "deep": ' + b"[" * 1900 + b"}",  # closed, it is JSON to some interpreters
        b'{"message": ' + b'{"a":' * 600 + b"1" + b"}" * 600 + b"}",
        b'{"message": "xylophone"} {}',
        b'\xef\xbb\xbf{"message": "xylophone"}',
        b'{"message": "xylophone", "n": NaN}',
        '{"message": "xylophone"}'.encode("utf-16"),
        b"message=xylophone",
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_a_body_that_is_none(api: Api, account: Account, body: bytes) -> None:
    send(api, post(account, body)).is_problem(422, "invalid_request")


async def test_a_request_without_any_body(api: Api, account: Account) -> None:
    bare = head("POST /chat", f"authorization: Bearer {account.key}", JSON_TYPE)

    send(api, bare).is_problem(422, "invalid_request")


@pytest.mark.slow
async def test_a_model_that_has_no_price(api: Api, account: Account) -> None:
    send(api, post(account, b'{"message": "hi", "model": "gpt-4"}')).is_problem(422, "unknown_model")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", ""]
)
async def test_a_body_that_is_not_said_to_be_json(api: Api, account: Account, media_type: str) -> None:
    wrong = post(account, b'{"message": "xylophone"}', f"content-type: {media_type}")
    send(api, wrong).is_problem(415, "unsupported_media_type")
    send(api, post(account, b'{"message": "xylophone"}', "x-none: 1")).is_problem(415, "unsupported_media_type")


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; charset=utf-8", "application/chat+json"])
async def test_a_body_of_the_largest_size(api: Api, books: Books, media_type: str) -> None:
    account = await books.account()
    key = (f"authorization: Bearer {account.key}", f"content-type: {media_type}")

    whole = send(api, head("POST /chat", *key, f"content-length: {MAX_BYTES}") + sized(MAX_BYTES))
    pieces = send(api, head("POST /chat", *key, "transfer-encoding: chunked") + chunked(sized(MAX_BYTES)))

    assert (whole.status, pieces.status) == (200, 200)
    assert whole.body.endswith(b"event: done\ndata: \n\n")
    assert pieces.body == whole.body
    assert [row["outcome"] for row in await books.requests(account)] == ["completed"] * 2


@pytest.mark.parametrize("more", [(), ("expect: 100-continue",)])
@pytest.mark.parametrize("size", [MAX_BYTES + 1, 10**9, 10**18])
async def test_a_body_that_is_said_to_be_too_large_is_not_waited_for(
    api: Api, account: Account, size: int, more: tuple[str, ...]
) -> None:
    key = f"authorization: Bearer {account.key}"

    reply = send(api, head("POST /chat", key, JSON_TYPE, f"content-length: {size}", *more))

    reply.is_problem(413, "body_too_large")


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 3 * MAX_BYTES])
async def test_a_body_that_turns_out_too_large(api: Api, account: Account, size: int) -> None:
    key = f"authorization: Bearer {account.key}"
    pieces = head("POST /chat", key, JSON_TYPE, "transfer-encoding: chunked") + chunked(sized(size))

    send(api, pieces).is_problem(413, "body_too_large")
    send(api, post(account, sized(size))).is_problem(413, "body_too_large")


async def test_a_body_that_is_too_large_for_any_route(api: Api, books: Books) -> None:
    admin = await books.account(scopes=[Scope.PLATFORM_ADMIN])
    key = f"authorization: Bearer {admin.key}"
    large = json.dumps({"slug": "large", "name": "x" * MAX_BYTES}).encode()

    for framing, body in ((f"content-length: {len(large)}", large), ("transfer-encoding: chunked", chunked(large))):
        reply = send(api, head("POST /v1/admin/tenants", key, JSON_TYPE, framing) + body)
        reply.is_problem(413, "body_too_large")
    assert not await books.fetch("SELECT FROM tenants WHERE slug = 'large'")


@pytest.mark.parametrize(
    "data",
    [
        b"xylophone\r\n\r\n",
        b"POST\r\n\r\n",
        b"POST /chat HTTP/9.9\r\n\r\n",
        b"POST /chat\x00 HTTP/1.1\r\nhost: naka\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
        b"POST /chat HTTP/1.1\r\nno colon here\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nhost: naka\r\ncontent-length: abc\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nhost: naka\r\ncontent-length: -5\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nhost: naka\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /chat HTTP/1.1\r\nhost: naka\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=lambda data: repr(data[:60]),
)
async def test_what_is_not_http(api: Api, account: Account, data: bytes) -> None:
    assert account.key
    reply = send(api, data)

    reply.is_problem(400, "bad_request")
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("header", ["authorization: Bearer {}", "x-api-key: {}", "x-junk: {}"])
async def test_a_huge_header(api: Api, account: Account, header: str) -> None:
    assert account.key
    huge = head("POST /chat", JSON_TYPE, "content-length: 2", header.format("x" * 2_000_000)) + b"{}"
    large = head("POST /chat", JSON_TYPE, "content-length: 2", header.format("x" * 60_000)) + b"{}"

    send(api, huge).is_problem(400, "bad_request")
    send(api, large).is_problem(401, "unauthenticated")


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("GET /xylophone", 404, "not_found"),
        ("POST /chats", 404, "not_found"),
        ("GET /v1/../chat", 404, "not_found"),
        ("GET /%ff", 404, "not_found"),
        ("GET /%00%ff", 422, "invalid_request"),
        ("GET /healthz?x=%00", 422, "invalid_request"),
        ("GET /chat", 405, "method_not_allowed"),
        ("PUT /chat", 405, "method_not_allowed"),
        ("OPTIONS /chat", 405, "method_not_allowed"),
        ("DELETE /v1/usage", 405, "method_not_allowed"),
    ],
)
async def test_a_route_that_is_none(api: Api, account: Account, line: str, status: int, code: str) -> None:
    reply = send(api, head(line, f"authorization: Bearer {account.key}"))

    reply.is_problem(status, code)
    assert reply.headers.get("allow") == ({"/chat": "POST"}.get(line.split()[1], "GET") if status == 405 else None)


async def test_a_slash_too_many_is_no_way_around_the_toll(api: Api, account: Account) -> None:
    for path in ("/chat/", "//chat", "/chat//", "/CHAT", "/./chat"):
        body = b'{"message": "hi"}'
        reply = send(api, post(account, body).replace(b"POST /chat ", f"POST {path} ".encode()))
        assert reply.status in (307, 404), path
    assert send(api, post(None, b'{"message": "hi"}').replace(b"/chat", b"/%63hat")).status == 401


@pytest.mark.parametrize("route", ["POST /chat", "GET /v1/usage"])
@pytest.mark.parametrize(
    "header",
    [
        "x-none: 1",
        "authorization: {key}",
        "authorization: Bearer",
        "authorization: Basic {key}",
        "authorization: Bearer {key}x",
        "authorization: Bearer {typo}",
        "authorization: Bearer {unknown}",
        "authorization: Bearer nk_test_\xff\xe9",
        "authorization: Bearer {key} {key}",
        "x-api-key: {typo}",
        "x-api-key: ",
    ],
)
async def test_a_key_that_is_none(api: Api, account: Account, route: str, header: str) -> None:
    typo = account.key[:-1] + ("a" if account.key[-1] != "a" else "b")
    key = header.format(key=account.key, typo=typo, unknown=generate_key(live=False).plaintext)
    body = b'{"message": "xylophone"}' if route.startswith("POST") else b""

    reply = send(api, head(route, key, JSON_TYPE, f"content-length: {len(body)}") + body)

    reply.is_problem(401, "unauthenticated")


async def test_a_key_that_has_expired(api: Api, books: Books, account: Account) -> None:
    async with books.connection() as connection:
        expire = "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = $1"
        await connection.execute(expire, account.key_id)

    send(api, post(account, b'{"message": "hi"}')).is_problem(401, "unauthenticated")


@pytest.mark.parametrize("header", ["authorization: Bearer {}", "authorization: bearer  {}", "x-api-key: {}"])
async def test_a_key_works_until_it_is_revoked(api: Api, books: Books, header: str) -> None:
    account = await books.account()
    asks = post(None, b'{"message": "hi"}', header.format(account.key), JSON_TYPE)
    assert send(api, asks).status == 200
    async with books.database.session() as session:
        await revoke_key(session, ACTOR, await find_key(session, account.key_id, tenant_id=None))

    send(api, asks).is_problem(401, "unauthenticated")  # at once, although the server had it in its cache

    assert len(await books.requests(account)) == 1


async def test_a_key_that_is_for_something_else(api: Api, books: Books) -> None:
    reader = await books.account(scopes=[Scope.USAGE_READ])
    small = await books.account(models=["claude-haiku-4-5"])

    for account in (reader, small):
        send(api, post(account, b'{"message": "hi"}')).is_problem(403, "forbidden")
        assert await books.requests(account) == []
    send(api, head("GET /v1/admin/tenants", f"x-api-key: {reader.key}")).is_problem(403, "forbidden")
