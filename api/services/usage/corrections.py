"""Corrections of requests, credits to users, and every entry on top of what was measured.

Only a platform admin writes them: they change what a tenant owes its operator. A tenant's admin reads its own. They
take effect with the next request, before which the counters behind the limits are rebuilt.
"""

from uuid import UUID

from api.schemas.pages import Page, page_of
from api.schemas.usage.corrections import EntryItem, EntryQuery, NewCorrection, NewCredit
from api.services.context import ServiceContext
from api.services.usage.days import end_of, start_of
from api.services.usage.subject import find_subject
from core.tenancy.accounts import find_user
from core.tenancy.principal import Scope
from metering.adjustments import corrections
from metering.adjustments.corrections import Amounts
from metering.quota.windows import Calendar
from metering.reports import requests
from metering.reports.requests import EntryFilter, EntryPage


async def correct_request(context: ServiceContext, request_id: UUID, new: NewCorrection) -> tuple[EntryItem, bool]:
    """Corrects what a settled request counts for; False: its reference had done so before.

    Raises NotFound, Invalid, Conflict.
    """
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        found = await requests.find_request(session, request_id, tenant_id=None)
        written = await corrections.correct(
            session,
            context.actor,
            found.row["tenant_id"],
            request_id,
            Amounts(**new.deltas.model_dump()),
            reason=new.reason,
            reference=new.reference,
        )
    return EntryItem.of(written.entry), written.is_new


async def credit_user(context: ServiceContext, user_id: UUID, new: NewCredit) -> tuple[EntryItem, bool]:
    """Takes something off a user's usage of a period, which may fall below zero; False: as above.

    Raises NotFound, Invalid, Conflict.
    """
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        written = await corrections.credit(
            session,
            context.actor,
            await find_user(session, user_id, tenant_id=None),
            Amounts(**new.amounts.model_dump()),
            calendar=Calendar(context.settings.timezone),
            period_id=new.period,
            day=new.day,
            reason=new.reason,
            reference=new.reference,
        )
    return EntryItem.of(written.entry), written.is_new


async def entries_of_request(
    context: ServiceContext, request_id: UUID, *, before: UUID | None, size: int
) -> Page[EntryItem]:
    """The entries of a request, newest first. Raises NotFound."""
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        request = await requests.find_request(session, request_id, tenant_id=context.tenant_id)
        chosen = EntryFilter(tenant_id=request.row["tenant_id"], request_id=request_id, before=before)
        return _shown(context, await requests.list_entries(session, chosen, limit=size))


async def list_entries(context: ServiceContext, wanted: EntryQuery, *, size: int) -> Page[EntryItem]:
    """Entries of every kind, newest first. Raises NotFound for the tenant or user."""
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        subject = await find_subject(context, session, wanted)
        chosen = EntryFilter(
            tenant_id=subject.tenant_id,
            user_id=subject.user_id,
            kind=wanted.kind,
            since=start_of(context, wanted.since),
            until=end_of(context, wanted.until),
            before=wanted.before,
        )
        return _shown(context, await requests.list_entries(session, chosen, limit=size))


def _shown(context: ServiceContext, found: EntryPage) -> Page[EntryItem]:
    return page_of(found, lambda entry: EntryItem.of(entry).shown(with_cost=context.sees_cost))
