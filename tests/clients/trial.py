"""One client's trial: its program runs, and what it saw and what is stored are compared with the simulator's ledger.

A program gets no network but loopback: any other host is behind a proxy that nobody runs.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from core.ids import uuid7
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.clients.catalogue import ROOT, Client
from tests.clients.judgement import fault_of
from tests.clients.stage import Stage
from tests.clients.stored import books_differ
from tests.clients.task import MODEL, Task
from tests.harness import Account, Books
from tests.harness import client as http_client

LONGEST_S = 240
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = {
    "HTTP_PROXY": _NOWHERE,
    "HTTPS_PROXY": _NOWHERE,
    "NO_PROXY": "127.0.0.1,localhost",
    "http_proxy": _NOWHERE,
    "https_proxy": _NOWHERE,
    "no_proxy": "127.0.0.1,localhost",
}
_USED_UP = LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 1),))


@dataclass
class Result:
    """The fault of each scenario, None where there is none, and that of the books."""

    scenarios: dict[str, str | None] = field(default_factory=dict)
    books: str | None = None
    output: str = ""
    """What the program wrote besides."""

    @property
    def faults(self) -> dict[str, str]:
        """Every fault, by scenario; `books` for the books."""
        found = {**self.scenarios, "books": self.books}
        return {name: fault for name, fault in found.items() if fault is not None}


async def tried(stage: Stage, books: Books, client: Client, only: Sequence[str] = (), *, model: str = MODEL) -> Result:
    """Runs a client's program, or some of its scenarios, and judges what it reports."""
    since = max((row["seq"] for row in stage.simulator.ledger()), default=0)
    account, limited = await books.account(), await books.account(limits=_USED_UP)
    await _use_up(stage, limited)
    ref = f"{client.name}-{uuid7().hex[-12:]}"
    task = Task(stage.api.url, account.key, limited.key, ref, client, model)
    before = stage.unauthenticated()
    seen, output = await _ran(client, task, only)
    result = Result(output=output)
    for one in seen:
        name = one.pop("scenario")
        result.scenarios[name] = fault_of(stage, name, one, task, limited)
    wrong_keys = stage.unauthenticated() - before
    if result.scenarios.get("key", "not run") is None and wrong_keys != 1:
        result.scenarios["key"] = f"asked {wrong_keys} times with a wrong key"
    if not seen:
        result.scenarios["start"] = f"no scenario was run: {output[-1500:]}"
    result.books = await books_differ(stage, books, (account, limited), since)
    return result


async def _use_up(stage: Stage, limited: Account) -> None:
    """Makes the one request that an account may make."""
    body = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "Hello."}]}
    async with http_client(stage.api.url) as http:
        headers = {**limited.headers, "anthropic-version": "2026-10-21"}
        answer = await http.post("/v1/messages", json=body, headers=headers)
    assert answer.status_code == HTTPStatus.OK, answer.text


async def _ran(client: Client, task: Task, only: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """Runs the program in an empty home, and returns its lines."""
    home = tempfile.mkdtemp(prefix="naka-client-")
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment = {
        **kept,
        **_OFFLINE,
        "HOME": home,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NAKA_TASK": task.encoded(),
    }
    try:
        process = await asyncio.create_subprocess_exec(
            *client.command(),
            *only,
            cwd=home,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), LONGEST_S)
        except TimeoutError:
            process.kill()
            output, _ = await process.communicate()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    lines = output.decode(errors="replace").splitlines()
    ours = [json.loads(line) for line in lines if line.startswith('{"scenario":')]
    return ours, "\n".join(line for line in lines if not line.startswith('{"scenario":'))
