"""Corrections of requests, credits to users, and every entry that stands on top of what was measured.

Only a platform admin writes them: they change what a tenant owes its operator, so a tenant's own admin could write
itself a discount, or its limits away. It reads them, of its own tenant. They take effect with the next request: the
counters behind the limits are built anew before it.
"""

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import PlatformAdmin, RuntimeDep, TenantAdmin, actor_of, tenant_filter
from api.routes.admin.requests import UserWanted, confine_to_user, end_of, start_of
from api.routes.parameters import Cursor, PageSize, Since, TenantWanted, Until, UserId
from api.routes.usage import Counts
from api.schemas.fields import EXAMPLE_ID, Body, Text, example
from api.schemas.moments import Day
from api.schemas.pages import DEFAULT_SIZE, Page
from core.tenancy.accounts import find_user
from core.tenancy.audit import Actor
from metering.adjustments.corrections import MAX_AMOUNT, MAX_REASON, NOBODYS_KEY, Amounts, Written, correct, credit
from metering.adjustments.measurement import Named
from metering.quota.windows import Calendar
from metering.reports.requests import EntryFilter, EntryPage, find_request, list_entries

router = APIRouter()

Kind = Literal["revision", "correction", "credit", "repair"]
RequestId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
KindWanted = Annotated[Kind | None, Query(description="Only these", examples=["credit"])]
Delta = Annotated[int, Field(strict=True, ge=-MAX_AMOUNT, le=MAX_AMOUNT)]
Amount = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Period = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-(?:0[1-9]|1[0-2])(?:-[A-Za-z0-9-]{1,60})?$")]


class Deltas(Body):
    """Signed differences of what a request counts for. Tokens are priced by the list, or else `cost_nano_usd` alone."""

    requests: Delta = 0
    input_tokens: Delta = 0
    output_tokens: Delta = 0
    cache_read_tokens: Delta = 0
    cache_write_5m_tokens: Delta = 0
    cache_write_1h_tokens: Delta = 0
    cost_nano_usd: Delta | None = None


class NewCorrection(Body):
    """Of a settled request. With `reference`, which a tenant has once, the call may be repeated."""

    model_config = example(deltas={"output_tokens": -120}, reason="the answer was cut", reference="ticket-4711")

    deltas: Deltas
    reason: Reason
    reference: Text | None = None


class CreditAmounts(Body):
    """What is taken off, each by itself: tokens do not change the cost here."""

    requests: Amount = 0
    input_tokens: Amount = 0
    output_tokens: Amount = 0
    cache_read_tokens: Amount = 0
    cache_write_5m_tokens: Amount = 0
    cache_write_1h_tokens: Amount = 0
    cost_nano_usd: Amount = 0


class NewCredit(Body):
    """To a user, in the current period unless one is named; `day` lies in it (default: the day nearest to today)."""

    model_config = example(
        amounts={"output_tokens": 5_000, "cost_nano_usd": 75_000_000}, reason="goodwill", reference="ticket-4712"
    )

    amounts: CreditAmounts
    period: Period | None = None
    day: Day | None = None
    reason: Reason
    reference: Text | None = None


class EntryItem(Counts):
    """One entry: signed differences. `key_id` and `model` are null for a credit, `request_id` too.

    Of a `revision`, `source` and `outcome` are those of the better measurement; null where it only takes counts away
    from a model that turned out not to have answered.
    """

    id: UUID
    tenant_id: UUID
    kind: Kind
    request_id: UUID | None
    user_id: UUID | None
    key_id: UUID | None
    model: str | None
    period: str
    day: date | None
    source: str | None
    outcome: str | None
    actor: str
    actor_key_id: UUID | None
    reason: str
    reference: str | None
    created_at: datetime

    @classmethod
    def of(cls, entry: Named) -> Self:
        """As it is answered."""
        shown: dict[str, Any] = {name: entry[name] for name in cls.model_fields if name != "period"}
        shown |= {"period": entry["period_id"], "model": entry["model"] or None}
        if shown["key_id"] == NOBODYS_KEY:
            shown["key_id"] = None
        return cls.model_validate(shown)


_ONCE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The entry that this reference wrote before", "model": EntryItem}
}


async def enter_correction(session: AsyncSession, actor: Actor, request_id: UUID, new: NewCorrection) -> Written:
    """Corrects the request, of whichever tenant. Raises NotFound, Invalid, Conflict."""
    found = await find_request(session, request_id, tenant_id=None)
    deltas = Amounts(**new.deltas.model_dump())
    tenant_id = found.row["tenant_id"]
    return await correct(session, actor, tenant_id, request_id, deltas, reason=new.reason, reference=new.reference)


async def enter_credit(
    session: AsyncSession, actor: Actor, user_id: UUID, new: NewCredit, calendar: Calendar
) -> Written:
    """Credits the user, of whichever tenant. Raises NotFound, Invalid, Conflict."""
    return await credit(
        session,
        actor,
        await find_user(session, user_id, tenant_id=None),
        Amounts(**new.amounts.model_dump()),
        calendar=calendar,
        period_id=new.period,
        day=new.day,
        reason=new.reason,
        reference=new.reference,
    )


@router.post("/requests/{request_id}/corrections", status_code=201, responses=_ONCE)
async def new_correction(
    request_id: RequestId,
    body: NewCorrection,
    principal: PlatformAdmin,
    runtime: RuntimeDep,
    request: Request,
    response: Response,
) -> EntryItem:
    """Correct what a settled request counts for."""
    async with runtime.database.session() as session:
        written = await enter_correction(session, actor_of(request, principal), request_id, body)
    return _answer(written, response)


@router.post("/users/{user_id}/credits", status_code=201, responses=_ONCE)
async def new_credit(
    user_id: UserId,
    body: NewCredit,
    principal: PlatformAdmin,
    runtime: RuntimeDep,
    request: Request,
    response: Response,
) -> EntryItem:
    """Take something off a user's usage of a period. It may fall below zero."""
    async with runtime.database.session() as session:
        written = await enter_credit(session, actor_of(request, principal), user_id, body, runtime.calendar)
    return _answer(written, response)


@router.get("/requests/{request_id}/entries")
async def entries_of_request(
    request_id: RequestId,
    principal: TenantAdmin,
    runtime: RuntimeDep,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[EntryItem]:
    """What was learnt or decided about a request after it was settled, newest first."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        request = await find_request(session, request_id, tenant_id=tenant_filter(principal))
        chosen = EntryFilter(tenant_id=request.row["tenant_id"], request_id=request_id, before=cursor)
        found = await list_entries(session, chosen, limit=size)
    return _page(found)


@router.get("/entries")
async def all_entries(  # noqa: PLR0913 - the filters
    *,
    principal: TenantAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    user_id: UserWanted = None,
    kind: KindWanted = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[EntryItem]:
    """Entries of every kind, newest first."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        chosen = EntryFilter(
            tenant_id=await confine_to_user(session, principal, tenant_id, user_id),
            user_id=user_id,
            kind=kind,
            since=start_of(since, runtime.calendar),
            until=end_of(until, runtime.calendar),
            before=cursor,
        )
        found = await list_entries(session, chosen, limit=size)
    return _page(found)


def _answer(written: Written, response: Response) -> EntryItem:
    """201 for a new entry, 200 for the one that was there."""
    if not written.is_new:
        response.status_code = 200
    return EntryItem.of(written.entry)


def _page(found: EntryPage) -> Page[EntryItem]:
    items = [EntryItem.of(entry) for entry in found.rows]
    return Page(items=items, next=None if found.next is None else str(found.next))
