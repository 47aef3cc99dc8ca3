"""The parties of bills, as the operator sets them: its own profile, and a tenant's."""

from typing import Annotated, Self

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StringConstraints

from api.auth.access import PlatformAdmin, RuntimeDep, TenantAdmin, actor_of, tenant_filter
from api.routes.admin.scope import reach_tenant
from api.routes.parameters import TenantId
from api.schemas.fields import Body, Text, example
from billing.catalogue.profiles import Profile, Supplier, find_profile, find_supplier, set_profile, set_supplier
from core.tenancy.audit import record_read

router = APIRouter()

State = Annotated[str, StringConstraints(pattern=r"^[0-9]{2}$")]
Gstin = Annotated[str, StringConstraints(min_length=15, max_length=15, pattern=r"^[0-9A-Za-z]+$")]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Lines = Annotated[list[Text], Field(min_length=1, max_length=4)]
Contact = Annotated[str, StringConstraints(pattern=r"^\+?[0-9]{8,15}$")]


class ProfileBody(Body):
    """A customer. `state`: GST's code of two digits, none abroad. Without `gstin` it is unregistered."""

    model_config = example(
        legal_name="Nimbus Tools Pvt Ltd",
        lines=["2 Marine Drive"],
        city="Mumbai",
        postal_code="400020",
        state="27",
        country="IN",
        email="billing@nimbus.example",
    )

    legal_name: Text
    lines: Lines
    city: Text
    postal_code: Text
    country: Country
    email: Text
    state: State | None = None
    gstin: Gstin | None = None
    contact: Contact | None = None

    def as_profile(self) -> Profile:
        """As billing takes it."""
        return msgspec.convert(self.model_dump(), Profile)


class ProfileItem(BaseModel):
    """A customer, as its next bill shows it."""

    legal_name: str
    lines: list[str]
    city: str
    postal_code: str
    country: str
    email: str
    state: str | None
    gstin: str | None
    contact: str | None

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """As it is answered."""
        return cls.model_validate(msgspec.to_builtins(profile))


class OperatorBody(Body):
    """The supplier on every bill. With `lut_number` it may serve customers abroad, zero-rated."""

    model_config = example(
        legal_name="Naka Cloud Pvt Ltd",
        lines=["1 Residency Road"],
        city="Bengaluru",
        postal_code="560025",
        state="29",
        gstin="29AAGCB7383J1Z4",
        email="accounts@naka.example",
        sac="998315",
    )

    legal_name: Text
    lines: Lines
    city: Text
    postal_code: Text
    state: State
    gstin: Gstin
    email: Text
    sac: Annotated[str, StringConstraints(pattern=r"^[0-9]{4,6}$")] = "998315"
    lut_number: Text | None = None

    def as_supplier(self) -> Supplier:
        """As billing takes it."""
        return msgspec.convert(self.model_dump(), Supplier)


class OperatorItem(BaseModel):
    """The supplier, as the next bill shows it."""

    legal_name: str
    lines: list[str]
    city: str
    postal_code: str
    state: str
    gstin: str
    email: str
    sac: str
    lut_number: str | None

    @classmethod
    def of(cls, own: Supplier) -> Self:
        """As it is answered."""
        return cls.model_validate(msgspec.to_builtins(own))


@router.get("/operator")
async def operator(_: PlatformAdmin, runtime: RuntimeDep) -> OperatorItem | None:
    """Who supplies; null before it was set."""
    async with runtime.database.session() as session:
        own = await find_supplier(session)
    return None if own is None else OperatorItem.of(own)


@router.put("/operator")
async def put_operator(
    body: OperatorBody, principal: PlatformAdmin, runtime: RuntimeDep, request: Request
) -> OperatorItem:
    """Set who supplies. Earlier bills stay as they are."""
    async with runtime.database.session() as session:
        return OperatorItem.of(await set_supplier(session, actor_of(request, principal), body.as_supplier()))


@router.get("/tenants/{tenant_id}/billing-profile")
async def tenant_profile(
    tenant_id: TenantId, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> ProfileItem | None:
    """What stands on a tenant's bills; null before it was set."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        tenant = await reach_tenant(session, principal, tenant_id)
        profile = await find_profile(session, tenant.id)
        target = f"tenant:{tenant.id}"
        record_read(session, actor_of(request, principal), "profile", tenant_id=tenant.id, target=target)
    return None if profile is None else ProfileItem.of(profile)


@router.put("/tenants/{tenant_id}/billing-profile")
async def put_tenant_profile(
    tenant_id: TenantId, body: ProfileBody, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> ProfileItem:
    """Set what stands on a tenant's bills."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        tenant = await reach_tenant(session, principal, tenant_id)
        actor = actor_of(request, principal)
        return ProfileItem.of(await set_profile(session, actor, tenant.id, body.as_profile()))
