"""Self-service: usage and limits of the key's own user."""

from fastapi import APIRouter, Request

from api.auth.access import ReaderContext, RuntimeDep, principal_of
from api.routes.parameters import FromDay, ToDay
from api.schemas.usage.own_usage import LimitsAnswer, UsageAnswer
from api.services.usage import own_usage

router = APIRouter(prefix="/v1", tags=["usage"])


@router.get("/usage")
async def usage(request: Request, context: ReaderContext, first: FromDay = None, last: ToDay = None) -> UsageAnswer:
    """Usage of the key's user, by day and model. Without a range: this month."""
    return await own_usage.own_usage(context, principal_of(request), first=first, last=last)


@router.get("/limits")
async def limits(request: Request, context: ReaderContext, runtime: RuntimeDep) -> LimitsAnswer:
    """Each limit of the key's user and of its tenant: used, held by running requests, left, and its reset."""
    return await own_usage.own_limits(context, principal_of(request), runtime.metering.limit_status)
