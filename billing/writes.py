"""Writes to Razorpay: store the intent, make the call, apply the answer. Every write of billing goes through here.

A row is `intended`, then `submitting` (committed before the call), then whatever the answer makes of it. A row found
`submitting` may have had its effect, so its effect is looked for before the call is repeated. Only `claim` lets a
caller past `intended`, so two workers never both send. No call is made inside a transaction. Razorpay down: raises
RazorpayError, and the next run continues.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Select

from billing.context import BillingContext
from billing.models import Charge, Mandate, RazorpayPlan, Refund, Subscription
from billing.models.states import UNANSWERED
from billing.razorpay.errors import RazorpayError, RazorpayInDoubt, RazorpayRefused
from core.clock import now_ms
from core.errors import NakaError, Unavailable
from core.logs import get_logger

MAX_ERROR = 500
"""Characters of a stored error."""
INTENDED, SUBMITTING = UNANSWERED

Answer = TypeVar("Answer")

log = get_logger(__name__)


def claim(row: Subscription | Charge | Mandate | Refund | RazorpayPlan) -> bool:
    """Marks an intended row as submitting, for this caller alone; False in any other state. The row's lock is held."""
    if row.state != INTENDED:
        return False
    row.state, row.tried_ms, row.error = SUBMITTING, now_ms(), None
    return True


async def submit(
    call: Callable[[], Awaitable[Answer]],
    *,
    apply: Callable[[Answer], Awaitable[object]],
    on_refused: Callable[[RazorpayRefused], Awaitable[Answer | None]],
    on_error: Callable[[RazorpayError], Awaitable[None]] | None = None,
    find: Callable[[], Awaitable[Answer | None]] | None = None,
) -> bool:
    """Makes the call of a claimed row and applies its answer; False if it was refused.

    `find` looks for the object that an earlier, unanswered call created, and saves the call if it finds one.
    `on_refused` stores the refusal, or returns such an object. `on_error` stores any other failure, which is raised
    again; without it the row stays `submitting`.
    """
    try:
        answer = None if find is None else await find()
        if answer is None:
            answer = await call()
    except RazorpayRefused as refused:
        answer = await on_refused(refused)
    except RazorpayError as error:
        if on_error is not None:
            await on_error(error)
        raise
    if answer is not None:
        await apply(answer)
    return answer is not None


async def release(context: BillingContext, row: Subscription | Charge | Mandate, error: RazorpayError | str) -> None:
    """Makes a row intended again after a call that had no effect. A call in doubt stays `submitting`.

    Changes nothing when another worker claimed the row since.
    """
    if isinstance(error, RazorpayInDoubt):
        return
    async with context.locked(row) as (_, fresh):
        if fresh.state == SUBMITTING and fresh.tried_ms == row.tried_ms:
            fresh.state, fresh.error = INTENDED, str(error)[:MAX_ERROR]


async def take_over(context: BillingContext, row: Charge) -> bool:
    """Whether this caller makes a call of a `submitting` row again, whose last one had no effect."""
    async with context.locked(row) as (_, fresh):
        if fresh.state != SUBMITTING or fresh.tried_ms != row.tried_ms:
            return False  # another worker took it over
        fresh.tried_ms = row.tried_ms = now_ms()
    return True


async def advance_all(
    context: BillingContext,
    due: Select[UUID, UUID],
    advance: Callable[[BillingContext, UUID, UUID], Awaitable[None]],
    row_type: type[Subscription | Charge | Mandate | Refund],
) -> None:
    """Advances each row that `due` selects by tenant and id. A failure is logged and left to the next run."""
    async with context.database.session() as session:
        keys = [(tenant_id, row_id) for tenant_id, row_id in await session.execute(due)]
    name = row_type.__name__.lower()
    waits, fails = f"{name}_waits", f"{name}_fails"
    for tenant_id, row_id in keys:
        try:
            await advance(context, tenant_id, row_id)
        except (RazorpayError, NakaError) as error:
            log.warning(waits, **{name: str(row_id)}, error=str(error))
        except Exception:
            log.exception(fails, **{name: str(row_id)})


async def for_each_key(
    context: BillingContext, query: Select[*tuple[Any, ...]], step: Callable[..., Awaitable[int | None]], name: str
) -> int:
    """`for_each` row that a query selects."""
    async with context.database.session() as session:
        keys = [tuple(row) for row in await session.execute(query)]
    return await for_each(context, keys, step, name)


async def for_each(
    context: BillingContext, keys: Iterable[tuple[Any, ...]], step: Callable[..., Awaitable[int | None]], name: str
) -> int:
    """Runs a step of a duty for each key, which begins with the tenant, and returns the sum of what the steps return.

    A failure is logged and left to the next run; Unavailable ends this run.
    """
    total, waits, fails = 0, f"{name}_waits", f"{name}_fails"
    for key in keys:
        said = {"tenant_id": str(key[0]), "key": [str(part) for part in key[1:]]}
        try:
            total += await step(context, *key) or 0
        except Unavailable:
            raise
        except NakaError as error:
            log.warning(waits, **said, error=str(error))
        except Exception:
            log.exception(fails, **said)
    return total
