"""Transport of calls to Razorpay: threads, time-outs, classification of answers, retries of reads. Knows no SDK.

The SDK's blocking calls run in our own threads, one client each, over a session that sets a time-out and classifies the
answer before the SDK sees it. Razorpay down or slow: a caller waits at most as long as `Patience` allows, and the event
loop never. Source: the SDK's code.
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
"""A call of the SDK, given a client."""
Shape = Callable[[Any], T]
"""Converts the answer to a type, or raises Misshapen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Bounds of every call."""

    connect_s: float = 3.05
    read_s: float = 15
    """Until the answer begins, and between two chunks of it."""
    whole_s: float = 30
    """One whole attempt. An abandoned attempt occupies its thread until it ends."""
    thread_s: float = 5
    """Until a thread is free."""
    retries: int = 2
    first_wait_s: float = 0.3
    longest_wait_s: float = 4


class Session(requests.Session):
    """The HTTP session under the SDK. It raises our own errors, which the SDK neither catches nor logs."""

    def __init__(self, base_url: str, patience: Patience) -> None:
        super().__init__()
        self._timeout = (patience.connect_s, patience.read_s)
        self.trust_env = base_url.startswith("https://")  # the sandbox is never behind the environment's proxy

    def request(self, method: str, url: str | bytes, *args: Any, **options: Any) -> requests.Response:
        """Sends and classifies. Raises RazorpayError outside any `except`, so that it doesn't hold the request."""
        is_read = method == "GET"
        # Following a redirect would be a second call, and could turn a POST into a GET.
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
    """Threads, each with its own client. One per process and event loop; close it at the end."""

    def __init__(self, make_client: Callable[[Session], Any], base_url: str, patience: Patience, threads: int) -> None:
        self._make_client = make_client
        self._base_url = base_url
        self._patience = patience
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="razorpay")
        self._free = asyncio.Semaphore(threads)
        self._local = threading.local()  # neither requests nor the SDK promises thread safety
        self._sessions: list[Session] = []

    def close(self) -> None:
        """Refuses further calls and closes idle connections; a running call ends by its own time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for session in self._sessions:
            session.close()

    async def write(self, work: Work, shape: Shape[T]) -> T:
        """Sends once. Raises RazorpayRefused, RazorpayThrottled, RazorpayInDoubt, or RazorpayUnavailable (not sent)."""
        return await self._try(work, shape, is_read=False)

    async def read(self, work: Work, shape: Shape[T]) -> T:
        """Sends, with retries. Raises RazorpayRefused, RazorpayThrottled or RazorpayUnavailable."""
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
        """Seconds until the next attempt of a read; None if there is none."""
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
            raise answer.with_traceback(None)  # the SDK's frames hold the key secret
        try:
            return shape(answer)
        except Misshapen as error:
            raise unanswered(str(error), is_read=is_read) from None

    async def _start(self, work: Work) -> Future[Any]:
        """Runs `work` in a free thread, which is occupied until the call ends, even if the caller gave up."""
        try:
            async with asyncio.timeout(self._patience.thread_s):
                await self._free.acquire()
        except TimeoutError:
            raise RazorpayBusy("all threads are taken") from None
        loop = asyncio.get_running_loop()
        future = self._threads.submit(self._in_thread, work)

        def release(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and with it every waiter
                loop.call_soon_threadsafe(self._free.release)

        future.add_done_callback(release)
        return future

    def _in_thread(self, work: Work) -> Any:
        try:
            return work(self._client())
        except RazorpayError as fault:
            return fault

    def _client(self) -> Any:
        if not hasattr(self._local, "client"):
            session = Session(self._base_url, self._patience)
            self._sessions.append(session)
            self._local.client = self._make_client(session)
        return self._local.client


def _broken(error: requests.RequestException, *, is_read: bool) -> RazorpayError:
    """A connection that was never established sent nothing; any other failure may have had an effect."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError):
        return RazorpayUnavailable("no connection")
    return unanswered("timed out" if isinstance(error, requests.Timeout) else type(error).__name__, is_read=is_read)
