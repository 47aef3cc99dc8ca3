"""Where a user stands: each of its limits, what is used, held and left, and when the window turns."""

from dataclasses import dataclass
from uuid import UUID

from core.clock import now_ms
from core.errors import Unavailable
from metering.entitlements import Entitlements
from metering.epochs import Epochs
from metering.limits import EffectiveLimit, LimitScope, Meter
from metering.quota import HashState, Quota, Stale, WindowState
from metering.windows import Calendar, Window, WindowKind, minute_window

_TRIES = 4


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """One limit now. Spend in micro-USD, used rounded up; `remaining` is not below 0."""

    limit: EffectiveLimit
    used: int
    held: int
    remaining: int
    resets_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """All limits, and the requests of the user that run now (`concurrency` None: no bound)."""

    limits: tuple[LimitStanding, ...]
    concurrency: int | None
    active: int


class Standings:
    """Reads the shadow in Redis, after building it where it is not whole. One per process."""

    def __init__(self, quota: Quota, epochs: Epochs, entitlements: Entitlements, calendar: Calendar) -> None:
        self._quota = quota
        self._epochs = epochs
        self._entitlements = entitlements
        self._calendar = calendar

    async def of(self, tenant_id: UUID, user_id: UUID) -> Standing:
        """Where the user stands. Raises Unavailable."""
        entitlement = await self._entitlements.of(tenant_id, user_id)
        at_ms = now_ms()
        windows = {
            WindowKind.MINUTE: minute_window(at_ms),
            WindowKind.DAY: self._calendar.day(at_ms),
            WindowKind.PERIOD: self._calendar.month(at_ms),
        }
        of_user, of_tenant = await self._read(tenant_id, user_id, windows)
        return Standing(
            tuple(
                _standing(limit, of_user if limit.scope is LimitScope.USER else of_tenant, windows)
                for limit in entitlement.limits
            ),
            entitlement.user_concurrency,
            of_user.active,
        )

    async def _read(
        self, tenant_id: UUID, user_id: UUID, windows: dict[WindowKind, Window]
    ) -> tuple[HashState, HashState]:
        names = [f"{kind.value[0]}:{window.name}" for kind, window in windows.items()]
        for _ in range(_TRIES):
            answer = await self._quota.read(tenant_id, user_id, names)
            if not isinstance(answer, Stale):
                return answer
            if answer.user_only:
                await self._epochs.build_user(tenant_id, user_id, answer.epoch)
            else:
                await self._epochs.rebuild_tenant(tenant_id, answer.epoch)
        raise Unavailable("the counters do not come to rest")


def _standing(limit: EffectiveLimit, state: HashState, windows: dict[WindowKind, Window]) -> LimitStanding:
    window = state.windows[list(windows).index(limit.window)]
    used, held = count(limit.meter, window)
    return LimitStanding(
        limit,
        limit.in_unit(used),
        limit.in_unit(held),
        max(0, limit.room_in_unit(limit.bound - used - held)),
        windows[limit.window].ends_ms,
    )


def count(meter: Meter, window: WindowState) -> tuple[int, int]:
    """(used, held) of a meter in a window, as admit.lua counts them; nano-USD for spend."""
    requests, output = window.used[0], window.used[2]
    prompt_classes = (window.used[1], *window.used[3:6])
    held_requests, held_prompt, held_output, held_nano = window.held
    return {
        Meter.REQUESTS: (requests, held_requests),
        Meter.INPUT: (prompt_classes[0], held_prompt),
        Meter.OUTPUT: (output, held_output),
        Meter.CACHE_READ: (prompt_classes[1], held_prompt),
        Meter.CACHE_WRITE_5M: (prompt_classes[2], held_prompt),
        Meter.CACHE_WRITE_1H: (prompt_classes[3], held_prompt),
        Meter.SPEND: (window.used[6], held_nano),
        Meter.TOKENS: (sum(prompt_classes) + output, held_prompt + held_output),
        Meter.CACHE_WRITE: (prompt_classes[2] + prompt_classes[3], held_prompt),
    }[meter]
