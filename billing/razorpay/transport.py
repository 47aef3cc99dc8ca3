"""How a call gets to Razorpay and back: threads, time-outs, judgement, second tries of reads. Knows no SDK.

The rule: a read (GET) is tried again, a bounded number of times; a write is sent once, and when its outcome is not
known that is what the caller hears (`RazorpayInDoubt`). The event loop never waits: the SDK's calls run in threads of
our own, one client each, over a session that puts a time-out on every call and judges the answer before the SDK sees
it. When Razorpay is down or slow, callers wait no longer than `Patience` says, and nobody else waits.
Source: facts/razorpay.md, section 7.
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
from urllib3.exceptions import NewConnectionError

from billing.razorpay.entities import Misshapen
from billing.razorpay.errors import (
    RazorpayBusy,
    RazorpayError,
    RazorpayThrottled,
    RazorpayUnavailable,
    fault_of,
    unanswered,
)

T = TypeVar("T")
Work = Callable[[Any], Any]
"""One call of the SDK, given a client."""
Shape = Callable[[Any], T]
"""Makes something typed of its answer, or raises Misshapen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The bounds of every call."""

    connect_s: float = 3.05
    read_s: float = 15
    """Silence: until the answer begins, and between two pieces of it."""
    whole_s: float = 30
    """All of one try, however it trickles. The thread of one that is given up comes free when it ends."""
    thread_s: float = 5
    """Until one of our threads is free."""
    retries: int = 2
    first_wait_s: float = 0.3
    longest_wait_s: float = 4


class Session(requests.Session):
    """What the SDK sends with. Its faults are ours, which the SDK neither catches nor prints."""

    def __init__(self, base_url: str, patience: Patience) -> None:
        super().__init__()
        self._timeout = (patience.connect_s, patience.read_s)
        self.trust_env = base_url.startswith("https://")  # a proxy of the environment never stands before a sandbox

    def request(self, method: str, url: str | bytes, *args: Any, **options: Any) -> requests.Response:
        """Sends, and judges the answer. Raises RazorpayError, outside any `except`: it takes no request along."""
        is_read = method == "GET"
        # A redirect followed would be a second call, and perhaps a GET of what was a POST.
        bounds: dict[str, Any] = {"timeout": self._timeout, "allow_redirects": False}
        try:
            response = super().request(method, url, *args, **(options | bounds))
        except requests.RequestException as error:
            fault: RazorpayError | None = _broken(error, is_read=is_read)
        else:
            retry_after = response.headers.get("retry-after")
            fault = fault_of(response.status_code, response.content, retry_after, is_read=is_read)
        if fault is not None:
            raise fault
        return response


class Transport:
    """The threads, each with a client of its own. One per process and event loop; close it at the end."""

    def __init__(self, make_client: Callable[[Session], Any], base_url: str, patience: Patience, threads: int) -> None:
        self._make_client = make_client
        self._base_url = base_url
        self._patience = patience
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="razorpay")
        self._free = asyncio.Semaphore(threads)
        self._mine = threading.local()  # neither requests nor the SDK promises that threads may share a client
        self._sessions: list[Session] = []

    def close(self) -> None:
        """Takes no more calls and closes idle connections; a running call ends by its own time-outs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for session in self._sessions:
            session.close()

    async def write(self, work: Work, shape: Shape[T]) -> T:
        """Sends once. Raises RazorpayRefused, RazorpayThrottled, RazorpayInDoubt, or RazorpayUnavailable: not sent."""
        return await self._try(work, shape, is_read=False)

    async def read(self, work: Work, shape: Shape[T]) -> T:
        """Sends, and again. Raises RazorpayRefused, RazorpayThrottled or RazorpayUnavailable."""
        tries = 0
        while True:
            try:
                return await self._try(work, shape, is_read=True)
            except (RazorpayThrottled, RazorpayUnavailable) as fault:
                wait_s = self._wait_s(fault, tries)
                if wait_s is None:
                    raise
            tries += 1
            await asyncio.sleep(wait_s)

    def _wait_s(self, fault: RazorpayThrottled | RazorpayUnavailable, tries: int) -> float | None:
        """How long until the next try of a read; None if there is none."""
        if tries >= self._patience.retries or isinstance(fault, RazorpayBusy):
            return None
        longest = self._patience.longest_wait_s
        asked = (fault.retry_after_s or 0) if isinstance(fault, RazorpayThrottled) else 0
        if asked > longest:
            return None
        backoff = min(self._patience.first_wait_s * 2.0**tries, longest)
        return max(asked, backoff * random.uniform(0.5, 1))  # noqa: S311 - jitter

    async def _try(self, work: Work, shape: Shape[T], *, is_read: bool) -> T:
        future = await self._start(work)
        try:
            async with asyncio.timeout(self._patience.whole_s):
                answer = await asyncio.wrap_future(future)
        except TimeoutError:
            raise unanswered("took too long", is_read=is_read) from None
        if isinstance(answer, RazorpayError):
            raise answer.with_traceback(None)  # the SDK's frames hold the key's secret
        try:
            return shape(answer)
        except Misshapen as error:
            raise unanswered(str(error), is_read=is_read) from None

    async def _start(self, work: Work) -> Future[Any]:
        """Gives `work` to a free thread, which stays taken until the call ends, even if nobody waits for it."""
        try:
            async with asyncio.timeout(self._patience.thread_s):
                await self._free.acquire()
        except TimeoutError:
            raise RazorpayBusy("all threads are taken") from None
        loop = asyncio.get_running_loop()
        future = self._threads.submit(self._in_thread, work)

        def release(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: so is who would wait
                loop.call_soon_threadsafe(self._free.release)

        future.add_done_callback(release)
        return future

    def _in_thread(self, work: Work) -> Any:
        try:
            return work(self._client())
        except RazorpayError as fault:
            return fault

    def _client(self) -> Any:
        if not hasattr(self._mine, "client"):
            session = Session(self._base_url, self._patience)
            self._sessions.append(session)
            self._mine.client = self._make_client(session)
        return self._mine.client


def _broken(error: requests.RequestException, *, is_read: bool) -> RazorpayError:
    """A connection that never came about carried nothing; any other may have."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError):
        return RazorpayUnavailable("no connection")
    return unanswered("timed out" if isinstance(error, requests.Timeout) else type(error).__name__, is_read=is_read)
