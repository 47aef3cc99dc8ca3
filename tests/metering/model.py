"""The quota as it is meant, small and slow: what admit.lua and settle.lua are held against.

A grant is found by trying every size, so the arithmetic of the scripts is not repeated here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from metering.quota.counters import WindowState
from metering.quota.decision import count
from metering.quota.limits import BillMeter, EffectiveLimit, LimitScope, Meter
from metering.quota.query import QuotaQuery
from metering.quota.windows import WindowKind, minute_window

Names = dict[WindowKind, str]


@dataclass(frozen=True)
class Verdict:
    """What admission should say; `granted` -1 and a cause where it refuses."""

    granted: int
    cause: str = ""
    limit: int | None = None
    of_user: bool = False
    worth_counting: bool = False


@dataclass
class ModelHash:
    """A user's hash, or its tenant's."""

    windows: dict[str, WindowState] = field(default_factory=dict)
    holds: dict[str, tuple[Names, tuple[int, int, int]]] = field(default_factory=dict)

    def window(self, name: str) -> WindowState:
        """A window that was never touched is empty."""
        return self.windows.get(name, WindowState())

    def hold(self, request: str, names: Names, amounts: tuple[int, int, int]) -> None:
        """Takes a hold; windows that are over are gone."""
        self.holds[request] = (names, amounts)
        self.windows = {
            name: WindowState(self.window(name).used, _plus(self.window(name).held, (1, *amounts)))
            for name in names.values()
        }

    def settle(self, request: str, counts: tuple[int, ...]) -> None:
        """What was used takes the place of the hold, in windows that still exist."""
        if request not in self.holds:
            return
        names, amounts = self.holds.pop(request)
        for name in set(names.values()) & self.windows.keys():
            state = self.windows[name]
            released = tuple(-amount for amount in (1, *amounts))
            self.windows[name] = WindowState(_plus(state.used, counts), _plus(state.held, released))


@dataclass
class QuotaModel:
    """One tenant, its users, its limits."""

    limits: tuple[EffectiveLimit, ...]
    user_concurrency: int | None
    tenant_concurrency: int | None
    tenant: ModelHash
    users: dict[int, ModelHash]

    def admit(self, user: int, ask: QuotaQuery, now_ms: int) -> Verdict:
        """The verdict on a question at that moment; nothing is held yet."""
        for most, running, of_user in (
            (self.user_concurrency, self.users[user].holds, True),
            (self.tenant_concurrency, self.tenant.holds, False),
        ):
            if most is not None and len(running) + 1 > most:
                return Verdict(-1, "never" if most == 0 else "held", None, of_user)
        sized = self._judge(user, ask, now_ms, ask.prompt_bound, ask.prompt_nano_usd)
        if sized.cause and ask.prompt_likely < ask.prompt_bound:
            likely = self._judge(user, ask, now_ms, ask.prompt_likely, ask.likely_nano_usd)
            return Verdict(-1, sized.cause, sized.limit, worth_counting=not likely.cause)
        return sized

    def _judge(self, user: int, ask: QuotaQuery, now_ms: int, prompt: int, nano: int) -> Verdict:
        smallest = min(ask.asked_output, ask.smallest_output)
        names = names_at(ask, now_ms)
        empty: list[int] = []
        idle: list[int] = []
        now: list[int] = []
        for limit in self.limits:
            of = self.users[user] if limit.scope is LimitScope.USER else self.tenant
            window = of.window(names[limit.window])
            for sizes, before in ((empty, WindowState()), (idle, WindowState(window.used)), (now, window)):
                sizes.append(_largest(ask.asked_output, self._fits(limit, ask, before, prompt, nano)))
        for index, size in enumerate(empty):
            if size < smallest:
                return Verdict(-1, "never", index)
        spent = [index for index, size in enumerate(idle) if size < smallest]
        if spent:
            kinds = list(WindowKind)
            return Verdict(-1, "used", max(spent, key=lambda i: (kinds.index(self.limits[i].window), -i)))
        could, can = min((ask.asked_output, *idle)), min((ask.asked_output, *now))
        if can < max(smallest, could // 2):
            return Verdict(-1, "held", now.index(can))
        return Verdict(can)

    @staticmethod
    def _fits(
        limit: EffectiveLimit, ask: QuotaQuery, window: WindowState, prompt: int, nano: int
    ) -> Callable[[int], bool]:
        before = 0 if isinstance(limit.meter, BillMeter) else sum(count(limit.meter, window))

        def fits(output: int) -> bool:
            if isinstance(limit.meter, BillMeter):
                return dearest(limit, window, prompt, output) <= limit.bound
            if limit.meter is Meter.REQUESTS:
                added = 1
            elif limit.meter is Meter.OUTPUT:
                added = output
            elif limit.meter is Meter.SPEND:
                added = nano + output * ask.output_rate
            elif limit.meter is Meter.TOKENS:
                added = prompt + output
            else:
                added = prompt
            return before + added <= limit.bound

        return fits


def names_at(ask: QuotaQuery, now_ms: int) -> Names:
    """The windows of a moment."""
    return {
        WindowKind.MINUTE: f"m:{minute_window(now_ms).name}",
        WindowKind.DAY: f"d:{ask.day.name}",
        WindowKind.PERIOD: f"p:{ask.period.name}",
    }


def dearest(limit: EffectiveLimit, window: WindowState, prompt: int = 0, output: int = 0) -> int:
    """The most that a window, its holds and a request on top can come to: a prompt may be counted as anything."""
    _, given, written, read, short, long, _ = window.used
    _, held_prompt, held_output, _ = window.held
    pending = prompt + held_prompt
    ends = [
        (given + pending, read, short + long),
        (given, read + pending, short + long),
        (given, read, short + long + pending),
    ]
    return max(
        sum(
            max(units - allowance, 0) * rate
            for units, (allowance, rate) in zip((*end, written + held_output + output), limit.prices, strict=True)
        )
        for end in ends
    )


def left(limit: EffectiveLimit, window: WindowState) -> int:
    """What is left of a limit."""
    if isinstance(limit.meter, BillMeter):
        return limit.bound - dearest(limit, window)
    return limit.bound - sum(count(limit.meter, window))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    return max((size for size in range(most + 1) if fits(size)), default=-1)


def _plus(one: Iterable[int], other: Iterable[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
