"""Workers that are killed: before or after the effect of a Razorpay call, or anywhere else."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from billing.collection.collection import collect
from billing.context import BillingContext
from billing.invoicing.period_close import close_due
from billing.mandates.push import push_mandates
from billing.razorpay.client import Razorpay as Gateway
from billing.razorpay.errors import RazorpayError
from billing.subscriptions.push import push_subscriptions
from billing.webhooks.processing import process_events
from core.errors import NakaError

Duty = Callable[[BillingContext], Awaitable[object]]
DUTIES: tuple[Duty, ...] = (process_events, push_subscriptions, push_mandates, close_due, collect)


class Killed(BaseException):
    """The worker's process dies."""


@dataclass
class KillPoint:
    """The call, by number, at which a worker dies: before or after its effect."""

    at_call: int
    after: bool
    calls: int = 0


class KillableGateway:
    """A Razorpay client whose calls can kill the worker, before the call or before its answer arrives."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.fate: KillPoint | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._gateway, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*positional: Any, **named: Any) -> Any:
            if self.fate is None:
                return await found(*positional, **named)
            self.fate.calls += 1
            strikes = self.fate.calls == self.fate.at_call
            answer = None if strikes and not self.fate.after else await found(*positional, **named)
            if strikes:
                raise Killed
            return answer

        return call


@dataclass
class Worker:
    """The billing of one process."""

    context: BillingContext
    gateway: KillableGateway
    random: Random
    deaths: int = 0

    async def live(self, passes: int, fate: KillPoint | None, cut_s: float | None) -> None:
        """Runs the duties in random order until it is killed."""
        self.gateway.fate = fate
        with suppress(TimeoutError):
            try:
                async with asyncio.timeout(cut_s):
                    for _ in range(passes):
                        for duty in self.random.sample(DUTIES, len(DUTIES)):
                            await self._do(duty)
            except Killed:
                self.deaths += 1
            except BaseExceptionGroup as group:
                killed, others = group.split(Killed)
                if killed is None or others is not None:
                    raise
                self.deaths += 1
        self.gateway.fate = None

    async def _do(self, duty: Duty) -> None:
        with suppress(RazorpayError, NakaError):  # like the worker's loop, which runs it again
            await duty(self.context)


def killable_worker(context: BillingContext, seed: int) -> Worker:
    """A worker with its own copy of the context."""
    gateway = KillableGateway(context.razorpay)
    return Worker(replace(context, razorpay=gateway), gateway, Random(seed))  # type: ignore[arg-type]
