"""The SDK's own tests of messages, from its source package, with Naka as their server.

Their key is fixed, so a small proxy in front of Naka sends an account's instead; nothing else changes on the way. The
tests with `all_params` in their names ask for what belongs to the operator's workspace (containers, skills, threads):
each has to be refused. All others have to pass.
"""

import asyncio
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.clients.catalogue import CACHE
from tests.clients.installation import execute
from tests.clients.stage import Stage
from tests.clients.stored import books_differ
from tests.harness import Account, Books

FOLDER = CACHE / "sdk-tests"
FILES = ("tests/api_resources/test_messages.py", "tests/api_resources/beta/test_messages.py")
PACKAGES = (
    *("anthropic[aiohttp]==2.*", "pytest", "pytest-asyncio", "pytest-xdist", "respx", "rich", "dirty-equals"),
    *("time-machine", "inline-snapshot", "http-snapshot[httpx]==0.1.9"),
)
LONGEST_S = 400
_REFUSALS = ("PermissionDeniedError", "BadRequestError", "ThreadUnsupportedRequestError")
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length"})
_CREDENTIALS = frozenset({"authorization", "x-api-key"})


async def run(stage: Stage, books: Books) -> int:
    """Prints the result and returns the number of failures."""
    try:
        tests = await asyncio.to_thread(_installed)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"sdk-tests NOT INSTALLED: {error}")  # noqa: T201
        return 1
    account = await books.account()
    since = max((row["seq"] for row in stage.simulator.ledger()), default=0)
    report = FOLDER / "report.xml"
    async with _proxy(stage.api.url, account) as url:
        process = await asyncio.create_subprocess_exec(
            *(str(FOLDER / "venv" / "bin" / "python"), "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"),
            *("-o", "addopts=--tb=line", "-o", "filterwarnings=", f"--junitxml={report}", *FILES),
            cwd=tests,
            env={"PATH": os.environ["PATH"], "HOME": str(FOLDER), "TEST_API_BASE_URL": url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), LONGEST_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            print(f"sdk-tests: not done after {LONGEST_S} s")  # noqa: T201
            return 1
    if not report.exists():
        print(output.decode()[-2000:])  # noqa: T201
        return 1
    fault = await books_differ(stage, books, [account], since)
    if fault is not None:
        print(f"    books: {fault}")  # noqa: T201
    return _judged(report, tests.name) + (fault is not None)


def _judged(report: Path, version: str) -> int:
    """Prints the counts, and the tests that neither passed nor were refused as they should be."""
    passed = refused = 0
    wrong: list[str] = []
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest wrote it
        name = f"{case.get('classname')}.{case.get('name')}"
        failure = case.find("failure") if case.find("failure") is not None else case.find("error")
        if failure is None:
            passed += case.find("skipped") is None
        elif "all_params" in name and any(kind in str(failure.get("message")) for kind in _REFUSALS):
            refused += 1
        else:
            wrong.append(f"{name}: {str(failure.get('message'))[:300]}")
    print(f"sdk-tests of {version}: {passed} passed, {refused} refused, {len(wrong)} failed")  # noqa: T201
    for line in wrong:
        print(f"    {line}")  # noqa: T201
    return len(wrong)


def _installed() -> Path:
    """Returns the folder of the source package, installed if need be."""
    python = FOLDER / "venv" / "bin" / "python"
    if not (FOLDER / ".installed").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        for command in (
            [sys.executable, "-m", "venv", str(FOLDER / "venv")],
            [str(python), "-m", "pip", "install", "-q", *PACKAGES],
            [str(python), "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "anthropic", PACKAGES[0]],
        ):
            execute(*command, cwd=FOLDER)
        with tarfile.open(next(FOLDER.glob("anthropic-*.tar.gz"))) as archive:
            archive.extractall(FOLDER, filter="data")
        (FOLDER / ".installed").touch()
    return next(path for path in FOLDER.glob("anthropic-*") if path.is_dir())


@asynccontextmanager
async def _proxy(url: str, account: Account) -> AsyncIterator[str]:
    """Forwards everything to Naka with the account's key in place of the one that was sent."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            headers = [
                (name, f"Bearer {account.key}" if name.lower() == "authorization" else account.key)
                if name.lower() in _CREDENTIALS
                else (name, value)
                for name, value in request.headers.items()
                if name.lower() not in _HOP_BY_HOP
            ]
            async with session.request(
                request.method, f"{url}{request.raw_path}", headers=headers, data=await request.read()
            ) as answer:
                kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP]
                response = web.StreamResponse(status=answer.status)
                response.headers.extend(kept)
                await response.prepare(request)
                with suppress(ConnectionError):  # the client left
                    async for piece in answer.content.iter_any():
                        await response.write(piece)
                    await response.write_eof()
                return response

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
