"""Shapes of a tenant and its plan."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.fields import Body, PlanNumber, Slug, Text, example
from api.schemas.rows import Row
from core.tenancy.models import Tenant

MAX_NEW_USERS = 100_000


class NewTenant(Body):
    """A customer of the operator; with `plan`, it starts on the version on offer, without one on the default plan."""

    model_config = example(slug="acme", name="Acme Pvt Ltd", plan="team")

    slug: Slug
    name: Text
    plan: Slug | None = None


class NewTenantWithAdmin(NewTenant):
    """A tenant with its first user, whose key administers it."""

    user: Text


class PlanChoice(Body):
    """A plan; the version on offer unless one is named."""

    model_config = example(code="team", version=1)

    code: Slug
    version: PlanNumber | None = None


class NewUsers(Body):
    """`makes_users`: requests that name an unknown user create it, at most `new_users_per_minute`.

    Every user of the minute counts, also those that an admin created.
    """

    model_config = example(makes_users=True, new_users_per_minute=600)

    makes_users: bool = Field(strict=True)
    new_users_per_minute: int = Field(strict=True, ge=0, le=MAX_NEW_USERS)

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        """The shape of a row."""
        return cls(makes_users=tenant.makes_users, new_users_per_minute=tenant.new_users_per_minute)


class PlanNamed(BaseModel):
    """A version of a plan."""

    code: str
    version: int


class TenantItem(Row):
    """A tenant; `plan` is null when it is on none."""

    id: UUID
    slug: str
    name: str
    plan: PlanNamed | None
    created_at: datetime

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        """The shape of a row."""
        plan = {"code": tenant.plan_code, "version": tenant.plan_version}
        return cls.completed(tenant, plan=None if tenant.plan_code is None else plan)


class TenantWithAdmin(BaseModel):
    """A tenant just made, and its first user's key: shown once."""

    tenant: TenantItem
    user: str
    key: str
