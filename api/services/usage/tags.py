"""The tag keys that a tenant declares, whose usage is added up by value."""

from uuid import UUID

from api.schemas.usage.tags import TagKeyBody, TagKeyItem
from api.services.accounts.lookups import reach_tenant
from api.services.context import ServiceContext, publish_after_commit
from api.services.usage.days import today
from core.errors import Invalid, NotFound
from core.tenancy.principal import Scope
from metering.tags import declared
from metering.tags.tags import Tags, checked


async def list_tag_keys(context: ServiceContext, tenant: UUID | str) -> list[TagKeyItem]:
    """The declared keys of a tenant. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        return [TagKeyItem.of(each) for each in await declared.list_keys(session, found.id, today(context))]


async def declare_tag_key(context: ServiceContext, tenant: UUID | str, key: str, body: TagKeyBody) -> TagKeyItem:
    """Declares a key, or changes its bound. Raises NotFound, Invalid."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        wanted = found.id, key, body.max_values
        made = await declared.declare_key(session, context.actor, *wanted, today(context))
        publish_after_commit(session, found.id)
    return TagKeyItem.of(made)


async def remove_tag_key(context: ServiceContext, tenant: UUID | str, key: str) -> None:
    """Ends a key. What was added up by it stays in the reports. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        await declared.remove_key(session, context.actor, found.id, key)
        publish_after_commit(session, found.id)


async def list_tag_names(context: ServiceContext, tenant: UUID | str | None) -> list[str]:
    """The keys that a report can be grouped by: of a tenant, or of every tenant in reach. An unknown one has none."""
    async with context.transaction(Scope.TENANT_READ) as session:
        try:
            tenant_id = context.tenant_id if tenant is None else (await reach_tenant(context, session, tenant)).id
        except NotFound:
            return []
        return await declared.list_names(session, tenant_id)


def read_tag(text: str) -> tuple[str, str]:
    """A tag of a filter, written as `feature=search`. Raises Invalid."""
    key, equals, value = text.partition("=")
    if not equals:
        raise Invalid("a tag is written as `feature=search`")
    found: Tags = checked([(key, value)])
    return found[0]
