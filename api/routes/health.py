"""`/healthz`: the process is up. `/readyz`: a request could be admitted, and this process is not about to stop.

Ready needs a Postgres that would take a request's row (`metering.journal.readiness`); `reason` says what keeps it from
that.
Redis is asked too, but without it Postgres admits, slower: that is reported, and ready. From the first signal to stop
on, it is not ready, while all is still served: a balancer has time to look elsewhere. The answer comes within
STORE_DEADLINE_S, whatever hangs.
"""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.auth.access import RuntimeDep
from api.runtime import Runtime
from core.errors import Unavailable
from metering.journal.readiness import UnreadyReason, unready_reason

router = APIRouter(tags=["health"])
_REDIS_S = 2


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What was asked and answered."""

    status: Literal["ready", "not_ready"]
    postgres: bool
    redis: bool
    draining: bool
    reason: UnreadyReason | None


@router.get("/healthz")
async def healthz() -> Health:
    """The process is up."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Postgres is away, or this process stops"}})
async def readyz(request: Request, runtime: RuntimeDep, response: Response) -> Readiness:
    """Asks Postgres whether it would take a request, and Redis whether it answers."""
    reason, redis = await asyncio.gather(
        unready_reason(runtime.pool, within_s=runtime.settings.store_deadline_s), _redis_answers(runtime)
    )
    draining: bool = getattr(request.app.state, "draining", False)  # api.http.server sets it
    ready = reason is None and not draining
    response.status_code = 200 if ready else 503
    return Readiness(
        status="ready" if ready else "not_ready",
        postgres=reason is None,
        redis=redis,
        draining=draining,
        reason=reason,
    )


async def _redis_answers(runtime: Runtime) -> bool:
    try:
        async with asyncio.timeout(_REDIS_S):
            await runtime.quota.lane.command("PING")
    except (Unavailable, TimeoutError):
        return False
    return True
