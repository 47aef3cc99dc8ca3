"""Reports of refused requests: sums of `usage_refusals` by any groups. A refused request was never opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select

from core.tenancy.models import Tenant
from metering.models import UsageRefusal

REFUSAL_GROUPS = {"tenant": UsageRefusal.tenant_id, "day": UsageRefusal.day, "code": UsageRefusal.code}
"""The column of each group that refusals can be grouped by."""


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """The report to make, for the operator's days `first` to `last`, both included; `tenant_id` None: every tenant."""

    first: date
    last: date
    group_by: Sequence[str] = ()
    tenant_id: UUID | None = None

    @property
    def columns(self) -> list[str]:
        """The names of the columns that `query` selects."""
        named = ["tenant_slug"] if "tenant" in self.group_by else []
        return [*(REFUSAL_GROUPS[group].key for group in self.group_by), *named, "requests"]

    def query(self) -> Select[*tuple[Any, ...]]:
        """The SELECT of `columns`, ordered by the groups."""
        groups = [REFUSAL_GROUPS[group] for group in self.group_by]
        named = [Tenant.slug.label("tenant_slug")] if "tenant" in self.group_by else []
        requests = func.coalesce(func.sum(UsageRefusal.requests), 0).label("requests")
        query = select(*groups, *named, requests).where(UsageRefusal.day.between(self.first, self.last))
        if named:
            query = query.join(Tenant, Tenant.id == UsageRefusal.tenant_id)
        if self.tenant_id is not None:
            query = query.where(UsageRefusal.tenant_id == self.tenant_id)
        return query.group_by(*groups, *(label.element for label in named)).order_by(*groups)
