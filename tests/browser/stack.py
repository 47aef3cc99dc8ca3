"""The stack of the browser tests: the API, a worker, and the simulators of Razorpay and Anthropic.

One per run, since a start costs seconds of CPU; each test creates its own accounts. Playwright's sync API occupies the
event loop of its thread, so async code runs in another one (`run_in_thread`).
"""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from core.tenancy.principal import Scope
from metering.quota.limits import LimitSet
from tests import fork_server, servers
from tests.harness import Account, Api, Books, Razorpay, Simulator, environment, running, scripted
from tests.journeys.shop import ALLOWANCES, BASE_PAISE, CUSTOMER, OPERATOR, RATES, SCOPES

if TYPE_CHECKING:
    from playwright.sync_api import Page

T = TypeVar("T")
PATIENCE_S = 20


def run_in_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread without event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


@dataclass(frozen=True)
class Stack:
    """The running stack, and operations on it without the browser."""

    url: str
    database_url: str
    razorpay: Razorpay
    simulator: Simulator
    operator: Account

    def account(
        self,
        *,
        scopes: Sequence[Scope] = SCOPES,
        limits: LimitSet | None = None,
        tenant_of: Account | None = None,
    ) -> Account:
        """Creates a user with a key, in a new tenant or in that of another account."""

        async def make(books: Books) -> Account:
            tenant_id = None if tenant_of is None else tenant_of.tenant_id
            return await books.account(scopes=scopes, limits=limits, tenant_id=tenant_id)

        return self.books(make)

    def customer(self, *, limits: LimitSet | None = None, profile: bool = True) -> Account:
        """Creates a tenant's admin who may also chat and has a billing profile."""
        account = self.account(limits=limits)
        if profile:
            self.call("PUT", "/v1/billing/profile", account, **CUSTOMER)
        return account

    def books(self, work: Callable[[Books], Coroutine[Any, Any, T]]) -> T:
        """Runs `work` with the stack's database."""

        async def opened() -> T:
            books = Books(self.database_url)
            try:
                return await work(books)
            finally:
                await books.close()

        return run_in_thread(lambda: asyncio.run(opened()))

    def call(self, method: str, path: str, account: Account, **body: Any) -> Any:
        """Calls the API; fails with its response."""
        data = json.dumps(body).encode() if body or method in {"POST", "PUT"} else None
        headers = account.headers | {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                found = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from None
        return json.loads(found) if found else None

    def chat(self, account: Account, message: str = "hello", /, tags: Mapping[str, str] = {}, **script: Any) -> None:
        """Sends a message and reads the whole answer; `script` is for the simulator."""
        with self.asking(account, message, tags, **script) as answer:
            assert b"event: done" in answer.read()

    @contextmanager
    def asking(
        self, account: Account, message: str = "hello", /, tags: Mapping[str, str] = {}, **script: Any
    ) -> Iterator[HTTPResponse]:
        """Sends a message; disconnects at the end of the block if the answer was not read."""
        data = json.dumps({"message": scripted(message, **script), **({"tags": tags} if tags else {})}).encode()
        headers = account.headers | {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/chat", data, headers), timeout=60) as answer:
            yield answer

    def sign_in(self, page: "Page", who: Account, path: str = "/") -> None:
        """Opens `path` without a session, and signs in on the way."""
        page.goto(f"{self.url}{path}")
        page.get_by_label("API key", exact=True).fill(who.key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.url}{path}*")

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Polls until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
            time.sleep(0.1)


@contextmanager
def running_stack(shared: servers.Servers, template: str, redis_url: str, folder: Path, origin: str) -> Iterator[Stack]:
    """Starts a stack whose operator sells the plan `team`, and stops it after the block."""
    folder.mkdir()
    name = f"naka_{folder.name.replace('-', '_')}"
    database_url = servers.application(
        run_in_thread(lambda: servers.create_database(shared.postgres, name, template=template))
    )
    simulator = Simulator()
    with Razorpay(clock_file=folder / "clock.json") as razorpay:
        settings = environment(database_url, redis_url, simulator.url, PAISE_PER_USD="8800", CORS_ORIGINS=origin)
        api = Api(settings, folder / "api.log", razorpay=razorpay)
        with running(api), _worker(settings | razorpay.env, folder / "worker.log"):
            stack = Stack(api.url, database_url, razorpay, simulator, _operator(database_url))
            stack.call("PUT", "/v1/admin/operator", stack.operator, **OPERATOR)
            stack.call("POST", "/v1/admin/plans", stack.operator, **_team())
            yield stack
    simulator.stop()
    run_in_thread(lambda: servers.drop_database(shared.postgres, name))


@contextmanager
def _worker(settings: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = fork_server.start("api.cli", "worker", variables=settings, stdout=out)
    try:
        yield
    finally:
        fork_server.stop(process)


def _operator(database_url: str) -> Account:
    async def make() -> Account:
        books = Books(database_url)
        try:
            return await books.account(scopes=(Scope.PLATFORM_ADMIN,))
        finally:
            await books.close()

    return run_in_thread(lambda: asyncio.run(make()))


def _team() -> dict[str, Any]:
    meters = [{"meter": meter, "allowance": ALLOWANCES[meter], "rate_paise": rate} for meter, rate in RATES.items()]
    return {
        "code": "team",
        "name": "Team",
        "base_paise": BASE_PAISE,
        "meters": meters,
        "past_allowance": "bill",
        "ceiling_paise": 1_000_000,
    }
