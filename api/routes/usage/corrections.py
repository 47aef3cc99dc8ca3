"""Corrections of requests, credits to users, and every entry on top of what was measured."""

from typing import Annotated, Any

from fastapi import Query, Response

from api.auth.access import PlatformContext, TenantContext
from api.routes.parameters import Cursor, PageSize, RequestId, Since, TenantWanted, Until, UserId, UserWanted
from api.routes.route import admin_router
from api.schemas.pages import DEFAULT_SIZE, Page
from api.schemas.usage.corrections import EntryItem, EntryQuery, Kind, NewCorrection, NewCredit
from api.services.usage import corrections

router = admin_router()

KindWanted = Annotated[Kind | None, Query(description="Only these", examples=["credit"])]
_ONCE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The entry that this reference wrote before", "model": EntryItem}
}


@router.post("/requests/{request_id}/corrections", status_code=201, responses=_ONCE)
async def new_correction(
    request_id: RequestId, body: NewCorrection, context: PlatformContext, response: Response
) -> EntryItem:
    """Correct what a settled request counts for."""
    return _answer(response, *await corrections.correct_request(context, request_id, body))


@router.post("/users/{user_id}/credits", status_code=201, responses=_ONCE)
async def new_credit(user_id: UserId, body: NewCredit, context: PlatformContext, response: Response) -> EntryItem:
    """Take something off a user's usage of a period. It may fall below zero."""
    return _answer(response, *await corrections.credit_user(context, user_id, body))


@router.get("/requests/{request_id}/entries")
async def entries_of_request(
    request_id: RequestId, context: TenantContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[EntryItem]:
    """The revisions and corrections of a request after it was settled, newest first."""
    return await corrections.entries_of_request(context, request_id, before=cursor, size=size)


@router.get("/entries")
async def all_entries(
    *,
    context: TenantContext,
    tenant_id: TenantWanted = None,
    user_id: UserWanted = None,
    kind: KindWanted = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[EntryItem]:
    """Entries of every kind, newest first."""
    wanted = EntryQuery(tenant=tenant_id, user_id=user_id, kind=kind, since=since, until=until, before=cursor)
    return await corrections.list_entries(context, wanted, size=size)


def _answer(response: Response, entry: EntryItem, is_new: bool) -> EntryItem:  # noqa: FBT001 - a pair, unpacked
    """201 for a new entry, 200 for the one that was there."""
    if not is_new:
        response.status_code = 200
    return entry
