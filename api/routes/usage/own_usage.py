"""Self-service: usage and limits of the key's own user."""

from typing import Annotated
from uuid import UUID

from fastapi import Header, Path, Request

from api.auth.access import ReaderContext, RuntimeDep, principal_of
from api.routes.parameters import FromDay, ToDay
from api.routes.route import api_router
from api.schemas.fields import EXAMPLE_ID
from api.schemas.usage.own_usage import LimitsAnswer, OwnRequest, UsageAnswer
from api.services.usage import own_usage
from metering.tags.tags import parse_header

router = api_router("usage", "/v1")

RequestId = Annotated[UUID, Path(description="`X-Request-Id` of the answer", examples=[EXAMPLE_ID])]

TagsHeader = Annotated[
    str,
    Header(
        alias="Naka-Tags", max_length=4096, description="Also the limits of these tags", examples=["feature=search"]
    ),
]


@router.get("/usage")
async def usage(request: Request, context: ReaderContext, first: FromDay = None, last: ToDay = None) -> UsageAnswer:
    """Usage of the key's user, by day and model. Without a range: this month."""
    return await own_usage.own_usage(context, principal_of(request), first=first, last=last)


@router.get("/usage/requests/{request_id}")
async def request_usage(request_id: RequestId, request: Request, context: ReaderContext) -> OwnRequest:
    """One request of the key's user: what it used, and why its answer ended."""
    return await own_usage.own_request(context, principal_of(request), request_id)


@router.get("/limits")
async def limits(request: Request, context: ReaderContext, runtime: RuntimeDep, tags: TagsHeader = "") -> LimitsAnswer:
    """Each limit of the key's user and of its tenant: used, held by running requests, left, and its reset.

    Also those of a short-lived token, and of requests with the tags of `Naka-Tags`.
    """
    return await own_usage.own_limits(
        context,
        principal_of(request),
        tuple(parse_header(tags.encode("latin-1"))) if tags.strip() else (),
        statuses=runtime.metering.limit_status,
        budgets=runtime.metering.budget_status,
    )
