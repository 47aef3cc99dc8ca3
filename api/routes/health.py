"""`/healthz`: the process is up. `/readyz`: a request could be admitted, and this process is not about to stop.

Ready needs Postgres. Redis is asked too, but without it Postgres admits, slower: that is reported, and ready. From
the first signal to stop on, it is not ready, while all is still served: a balancer has time to look elsewhere.
"""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.routes.access import RuntimeDep
from api.runtime import Runtime
from core.errors import Unavailable

router = APIRouter(tags=["health"])
_TIMEOUT_S = 2


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What was asked and answered."""

    status: Literal["ready", "not_ready"]
    postgres: bool
    redis: bool
    draining: bool


@router.get("/healthz")
async def healthz() -> Health:
    """The process is up."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Postgres is away, or this process stops"}})
async def readyz(request: Request, runtime: RuntimeDep, response: Response) -> Readiness:
    """Postgres and Redis were asked just now."""
    postgres, redis = await asyncio.gather(_answers(_select_one(runtime)), _answers(runtime.quota.lane.command("PING")))
    draining: bool = getattr(request.app.state, "draining", False)  # api.server sets it
    ready = postgres and not draining
    response.status_code = 200 if ready else 503
    return Readiness(status="ready" if ready else "not_ready", postgres=postgres, redis=redis, draining=draining)


async def _select_one(runtime: Runtime) -> None:
    async with runtime.pool.acquire() as connection:
        await connection.fetchval("SELECT 1")


async def _answers(question: Any) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await question
    except (Unavailable, TimeoutError):
        return False
    return True
