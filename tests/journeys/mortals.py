"""Workers that die: inside of a call of Razorpay's, before it or with its answer under way, or anywhere else."""

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
from billing.razorpay.client import Razorpay as Gateway
from billing.razorpay.errors import RazorpayError
from billing.subscriptions.push import drive
from billing.webhooks.processing import process_due
from core.errors import NakaError

DUTIES: tuple[Callable[[BillingContext], Awaitable[object]], ...] = (process_due, drive, close_due, collect)


class Killed(BaseException):
    """The worker's process ends here."""


@dataclass
class Fate:
    """When a worker's gateway kills it: before or after the call of that number."""

    at_call: int
    after: bool
    calls: int = 0


class Mortal:
    """A gateway in whose calls a worker may die: before Razorpay heard of it, or with the answer under way."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.fate: Fate | None = None

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
    """One process's billing."""

    context: BillingContext
    gateway: Mortal
    random: Random
    deaths: int = 0

    async def live(self, passes: int, fate: Fate | None, cut_s: float | None) -> None:
        """Does the duties, in any order, until it dies."""
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

    async def _do(self, duty: Callable[[BillingContext], Awaitable[object]]) -> None:
        with suppress(RazorpayError, NakaError):  # as the worker's loop: it comes again at the next tick
            await duty(self.context)


def mortal(context: BillingContext, seed: int) -> Worker:
    """A worker at a desk like this one."""
    gateway = Mortal(context.razorpay)
    return Worker(replace(context, razorpay=gateway), gateway, Random(seed))  # type: ignore[arg-type]
