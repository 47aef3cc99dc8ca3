"""`/healthz`: the process is up. `/readyz`: a request could be admitted, and this process is not stopping.

Ready requires that Postgres would take a request's row (`metering.journal.readiness`); `reason` says why not. Redis
down is reported, but ready: Postgres admits then. After the first stop signal it is not ready, while everything is
still served, so that a load balancer can turn to another process. It answers within STORE_DEADLINE_S.
"""

import asyncio
from typing import Literal

from fastapi import Request, Response
from pydantic import BaseModel

from api.auth.access import RuntimeDep
from api.routes.route import api_router
from api.runtime import Runtime
from core.errors import Unavailable
from metering.journal.readiness import UnreadyReason, unready_reason

router = api_router("health")
_REDIS_S = 2


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The state of the stores and of this process."""

    status: Literal["ready", "not_ready"]
    postgres: bool
    redis: bool
    draining: bool
    reason: UnreadyReason | None


@router.get("/healthz")
async def healthz() -> Health:
    """The process is up."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Postgres is down, or this process stops"}})
async def readyz(request: Request, runtime: RuntimeDep, response: Response) -> Readiness:
    """Whether Postgres would take a request's row, and Redis answers."""
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
            await runtime.metering.quota.pipeline.command("PING")
    except (Unavailable, TimeoutError):
        return False
    return True
