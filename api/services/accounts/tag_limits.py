"""Limits of tags: budgets of all requests of a tenant with a tag. A tenant's admin sets those of its own tenant."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.accounts.tag_limits import NewTagLimits, TagLimitItem
from api.schemas.pages import Page, one_more, page
from api.services.accounts.lookups import reach_tenant
from api.services.context import ServiceContext, publish_after_commit
from core.clock import now_ms
from core.errors import Invalid
from metering.admission.budget_status import read_budgets
from metering.budgets import tag_limits
from metering.journal.epoch import fetch_in
from metering.quota.budgets import Budget, Tag, tag_budgets
from metering.quota.windows import Calendar
from metering.tags import declared


async def list_tag_limits(
    context: ServiceContext,
    tenant: UUID | str,
    *,
    key: str | None = None,
    after: str | None = None,
    size: int | None = None,
) -> Page[TagLimitItem]:
    """The tags of a tenant that have limits, by key and value. Raises NotFound, Invalid."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        listed = await tag_limits.list_tag_limits(session, found.id, key=key, after=_tag(after), size=one_more(size))
        items = await _items(context, session, found.id, listed)
    return page(items, size, lambda item: item, lambda item: f"{item.key}={item.value}")


async def set_tag_limits(context: ServiceContext, tenant: UUID | str, body: NewTagLimits) -> TagLimitItem:
    """Replaces the limits of a tag. Raises NotFound, Invalid for a key that is not declared, Conflict."""
    tag, limits = body.tag, body.as_limits()
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        await tag_limits.set_tag_limits(session, context.actor, found.id, *tag, limits)
        publish_after_commit(session, found.id)
        (item,) = await _items(context, session, found.id, [(tag, tag_budgets(tag, limits))])
        return item


async def remove_tag_limits(context: ServiceContext, tenant: UUID | str, *, key: str, value: str) -> None:
    """Removes the limits of a tag. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        await tag_limits.remove_tag_limits(session, context.actor, found.id, key, value)
        publish_after_commit(session, found.id)


async def declared_keys(context: ServiceContext, tenant: UUID | str) -> list[str]:
    """The keys whose tags can have limits. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        return sorted(await declared.declared_keys(session, found.id))


async def _items(
    context: ServiceContext, session: AsyncSession, tenant_id: UUID, listed: list[tuple[Tag, tuple[Budget, ...]]]
) -> list[TagLimitItem]:
    """The tags with the status of each limit, read in one statement."""
    budgets = [budget for _, of_tag in listed for budget in of_tag]
    if not budgets:
        return []
    calendar = Calendar(context.settings.timezone)
    statuses = await read_budgets(fetch_in(session), calendar, tenant_id, budgets, at_ms=now_ms())
    by_budget = dict(zip(budgets, statuses, strict=True))
    return [
        TagLimitItem.of(*tag, (by_budget[one] for one in of_tag), with_cost=context.sees_cost) for tag, of_tag in listed
    ]


def _tag(cursor: str | None) -> Tag | None:
    if cursor is None:
        return None
    key, separator, value = cursor.partition("=")
    if not separator or "\0" in cursor:
        raise Invalid("cursor: not one of this list")
    return key, value
