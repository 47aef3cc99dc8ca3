"""The backends of "Put Naka in front of your app", run unchanged in their frameworks, and equal to the document."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey

from core.tenancy.principal import Scope
from sandbox.daemon import free_port
from tests import packages
from tests.answers import parse_sse
from tests.harness import ROOT, Account, Api, Books, client, scripted
from tests.journeys.backends import USER

FOLDER = ROOT / "examples" / "backends"
HOWTO = ROOT / "docs" / "howto" / "in-front-of-your-app.md"
FRAMEWORKS = ("fastapi", "django", "express", "nextjs")
FORMS = ("proxy", "token", "jwt")
APP = "https://app.acme.example"
LONGEST_LINES = 30
every_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


@asynccontextmanager
async def product(
    framework: str, form: str, api: Api, key: str, tmp_path: Path, *, origin: str = APP
) -> AsyncIterator[httpx2.AsyncClient]:
    """Runs a product with an example in it; yields a client of it."""
    port = free_port()
    variables = {
        "PATH": os.environ["PATH"],
        "NAKA_URL": api.url,
        "NAKA_KEY": key,
        "APP_ORIGIN": origin,
        "JWT_KEY_FILE": str(tmp_path / "key.json"),
    }
    if framework in {"fastapi", "django"}:
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"no {framework}: pip install {framework}")
        command, folder = [sys.executable, "-m", "tests.journeys.backends"], ROOT
    else:
        packages.require("express", "jose")
        command, folder = ["node", "backends.mjs"], tmp_path
        _put(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, framework, form, str(port), cwd=folder, env=variables, stdout=log, stderr=log
        )
    try:
        async with client(f"http://127.0.0.1:{port}") as http:
            await _listening(http, process, (tmp_path / "log").read_text)
            yield http
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _put(folder: Path) -> None:
    """Puts the examples, their packages and a stub of `@/auth` into a folder."""
    for file in (*FOLDER.glob("*.mjs"), Path(__file__).parent / "backends.mjs"):
        shutil.copy(file, folder)
    modules = folder / "node_modules"
    modules.mkdir()
    for package in (packages.FOLDER / "node_modules").iterdir():
        (modules / package.name).symlink_to(package)
    stub = modules / "@" / "auth"
    stub.mkdir(parents=True)
    (stub / "package.json").write_text('{"name": "@/auth", "type": "module", "main": "index.js"}')
    (stub / "index.js").write_text(f"export const auth = async () => ({{ user: {{ name: {json.dumps(USER)} }} }});")


async def _listening(http: httpx2.AsyncClient, process: asyncio.subprocess.Process, log: Callable[[], str]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            await http.get("/nothing")
        except httpx2.TransportError:
            assert time.monotonic() < deadline, log()
            assert process.returncode is None, log()
            await asyncio.sleep(0.05)
        else:
            return


async def rows_of(books: Books, account: Account) -> list[tuple[str, str]]:
    """The user and the outcome of each request of the account's tenant, once all are settled."""
    async with asyncio.timeout(20):
        while True:
            rows = await books.fetch(
                "SELECT u.external_id, r.state, r.outcome FROM usage_requests r JOIN users u ON u.id = r.user_id"
                " WHERE r.tenant_id = $1 ORDER BY r.id",
                account.tenant_id,
            )
            if rows and all(row["state"] == "settled" for row in rows):
                return [(row["external_id"], row["outcome"]) for row in rows]
            await asyncio.sleep(0.02)


@pytest.mark.slow
@every_framework
async def test_a_backend_passes_the_answer_on(framework: str, api: Api, books: Books, tmp_path: Path) -> None:
    account = await books.account(scopes=[Scope.CHAT_AS_USER])
    async with product(framework, "proxy", api, account.key, tmp_path) as http:
        answer = await http.post("/chat", json={"message": scripted(pieces=["एक ", "two"])})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert parse_sse(answer.content) == [("message", "एक "), ("message", "two"), ("done", "")]

        refused = await http.post("/chat", json={"message": ""})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        assert refused.headers["x-request-id"] == refused.json()["request_id"]

        slow = {"message": scripted(pieces=["first ", "second"], first_delay_ms=0, piece_delay_ms=60_000)}
        async with http.stream("POST", "/chat", json=slow) as stream:
            async for chunk in stream.aiter_raw():
                assert chunk == b"data: first \n\n", "at once, and not with the rest"
                break
        assert await rows_of(books, account) == [(USER, "completed"), (USER, "client_gone")]


@pytest.mark.slow
@every_framework
async def test_a_page_asks_with_a_token(framework: str, api: Api, books: Books, tmp_path: Path) -> None:
    account = await books.account(scopes=[Scope.CHAT_AS_USER])
    async with product(framework, "token", api, account.key, tmp_path) as http, client(api.url) as naka:
        made = await http.post("/chat-token")
        assert (made.status_code, "no-store" in made.headers["cache-control"]) == (201, True), made.text
        headers = {"authorization": f"Bearer {made.json()['token']}"}
        answer = await naka.post("/chat", json={"message": "hello"}, headers={**headers, "origin": APP})
        assert answer.status_code == 200
        stolen = await naka.post(
            "/chat", json={"message": "hello"}, headers={**headers, "origin": "https://evil.example"}
        )
        assert (stolen.status_code, stolen.json()["code"]) == (403, "origin_not_allowed")
    assert await rows_of(books, account) == [(USER, "completed")]


@pytest.mark.slow
@every_framework
async def test_a_page_asks_with_the_products_jwt(framework: str, api: Api, books: Books, tmp_path: Path) -> None:
    account = await books.account(scopes=[Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ, Scope.CHAT_AS_USER])
    key = ECKey.generate_key("P-256", {"kid": "k-1"}, private=True)
    (tmp_path / "key.json").write_text(json.dumps(key.as_dict(private=True)))
    origin = f"https://{account.tenant_id}.example"  # an issuer with an audience belongs to one tenant
    async with (
        product(framework, "jwt", api, account.key, tmp_path, origin=origin) as http,
        client(api.url) as naka,
    ):
        published = (await http.get("/.well-known/jwks.json")).json()
        assert [sorted(one.keys() & {"kid", "x", "y", "d"}) for one in published["keys"]] == [["kid", "x", "y"]]
        await register(
            naka,
            account,
            issuer=origin,
            audience="naka",
            verification_keys=f"{str(http.base_url).rstrip('/')}/.well-known/jwks.json",
            scopes=["chat"],
        )
        token = (await http.post("/chat-token")).json()["token"]
        answer = await naka.post("/chat", json={"message": "hello"}, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
    assert await rows_of(books, account) == [(USER, "completed")]


async def register(naka: httpx2.AsyncClient, account: Account, **issuer: Any) -> None:
    """Registers an issuer for the account's tenant."""
    path = f"/v1/admin/tenants/{account.tenant_id}/issuers"
    made = await naka.post(path, json=issuer, headers=account.headers)
    assert made.status_code == 201, made.text


def test_the_document_has_every_example_as_it_is() -> None:
    blocks = re.findall(
        r"^<!-- (examples/backends/\S+) -->\n```\w+\n(.*?)^```$", HOWTO.read_text(), re.DOTALL | re.MULTILINE
    )
    assert sorted(name for name, _ in blocks) == sorted(
        str(file.relative_to(ROOT)) for file in FOLDER.iterdir() if file.suffix in {".py", ".mjs"}
    )
    assert len(blocks) == len(FRAMEWORKS) * len(FORMS)
    for name, text in blocks:
        assert text == (ROOT / name).read_text(), name
        assert text.count("\n") < LONGEST_LINES, name
