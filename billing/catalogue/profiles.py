"""The two parties of every bill: the customer's profile and the operator's.

Both are required before a tenant can subscribe, and copied onto each bill, so a change doesn't alter old bills. A GSTIN
is checked for its form, check character and state; only the GST portal knows whether it is registered. A customer
abroad is an export under the operator's letter of undertaking (LUT), and refused without one.
"""

import re
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import lock_tenant
from billing.gst.gstin import STATES, WrongGstin, checked_gstin, state_of
from billing.gst.tax import INDIA, Customer, Supply, SupplyRefused, Treatment, gross_of, supply_to
from billing.models import Bill, BillingProfile, OperatorProfile
from billing.models.states import BillKind, BillState
from billing.wallet.entries import lots_of
from core.errors import Invalid, NotFound
from core.tenancy.audit import PLATFORM, Actor, record

SAC = "998315"
"""Hosting and IT infrastructure provisioning, common for SaaS; the operator's accountant decides."""
_ROUNDING_PAISE = 2
"""Two components of a tax are rounded apart."""
MAX_NAME, MAX_LINE, MAX_EMAIL = 100, 100, 64
_PIN = re.compile(r"[1-9][0-9]{5}")
_EMAIL = re.compile(r"[^@\s]{1,40}@[^@\s]+\.[^@\s.]+")
_CONTACT = re.compile(r"\+?[0-9]{8,15}")
_COUNTRY = re.compile(r"[A-Z]{2}")


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer. `state` is GST's code, None abroad; without a `gstin` it is unregistered."""

    legal_name: str
    lines: tuple[str, ...]
    city: str
    postal_code: str
    country: str
    email: str
    state: str | None = None
    gstin: str | None = None
    contact: str | None = None


class Supplier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The operator. An `lut_number` allows customers abroad."""

    legal_name: str
    lines: tuple[str, ...]
    city: str
    postal_code: str
    state: str
    gstin: str
    email: str
    sac: str = SAC
    lut_number: str | None = None


async def set_profile(session: AsyncSession, actor: Actor, tenant_id: UUID, profile: Profile) -> Profile:
    """Replaces the tenant's profile. Raises Invalid.

    Another rate of tax is refused while the wallet has money, or a top-up is open: that is taxed by the old one.
    """
    profile = checked_profile(profile)
    await lock_tenant(session, tenant_id)
    own = await find_supplier(session)
    row = await session.get(BillingProfile, tenant_id)
    if own is not None:
        supply = supply_between(profile, own)
        if await _has_advances_of_another_rate(session, tenant_id, supply):
            raise Invalid("the wallet's money was taxed at another rate: use it up, or ask for its refund, first")
    before, kept, target = None if row is None else row.profile, msgspec.to_builtins(profile), f"tenant:{tenant_id}"
    record(session, actor, "billing.profile", tenant_id=tenant_id, target=target, before=before, after=kept)
    statement = insert(BillingProfile).values(tenant_id=tenant_id, profile=kept)
    await session.execute(statement.on_conflict_do_update(index_elements=["tenant_id"], set_={"profile": kept}))
    return profile


async def _has_advances_of_another_rate(session: AsyncSession, tenant_id: UUID, supply: Supply) -> bool:
    """Whether the wallet holds, or may get, money of top-ups that were taxed otherwise."""
    held = {lot.bill_id for lot in await lots_of(session, tenant_id) if lot.is_money and lot.left_paise > 0}
    query = select(Bill).where(Bill.tenant_id == tenant_id, Bill.kind == BillKind.RECEIPT_VOUCHER)
    vouchers = await session.scalars(query.where(or_(Bill.id.in_(held), Bill.state == BillState.OPEN)))
    return any(abs(one.total_paise - gross_of(one.taxable_paise, supply)) > _ROUNDING_PAISE for one in vouchers)


async def set_supplier(session: AsyncSession, actor: Actor, own: Supplier) -> Supplier:
    """Replaces the operator's profile. Raises Invalid."""
    own = checked_supplier(own)
    kept = msgspec.to_builtins(own)
    row = await session.get(OperatorProfile, 1)
    before = None if row is None else row.profile
    record(session, actor, "operator.profile", tenant_id=PLATFORM, target="operator", before=before, after=kept)
    statement = insert(OperatorProfile).values(id=1, profile=kept)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"profile": kept}))
    return own


async def get_profile(session: AsyncSession, tenant_id: UUID) -> Profile:
    """The tenant's profile. Raises NotFound."""
    profile = await find_profile(session, tenant_id)
    if profile is None:
        raise NotFound("the tenant has no billing profile")
    return profile


async def get_supplier(session: AsyncSession) -> Supplier:
    """The operator's profile. Raises NotFound."""
    own = await find_supplier(session)
    if own is None:
        raise NotFound("the operator has no profile: `naka operator set`")
    return own


async def treatments_served(session: AsyncSession) -> tuple[Treatment, ...]:
    """The possible treatments: exports only with a letter of undertaking; none without the operator's profile."""
    own = await find_supplier(session)
    if own is None:
        return ()
    return tuple(one for one in Treatment if one is not Treatment.EXPORT or own.lut_number is not None)


async def supply_for(session: AsyncSession, tenant_id: UUID) -> Supply:
    """The tenant's tax treatment now. Raises Invalid if it can't be billed."""
    try:
        return supply_between(await get_profile(session, tenant_id), await get_supplier(session))
    except NotFound as error:
        raise Invalid(f"{error}, which is required first") from error


def supply_between(profile: Profile, own: Supplier) -> Supply:
    """The tax treatment of this customer of this supplier. Raises Invalid if it can't be billed."""
    customer = Customer(profile.country, profile.state, profile.gstin)
    try:
        return supply_to(customer, supplier_state=own.state, has_lut=own.lut_number is not None)
    except (SupplyRefused, WrongGstin) as error:
        raise Invalid(str(error)) from error


def supply_to_json(supply: Supply) -> dict[str, Any]:
    """The stored form in rows."""
    return dict(msgspec.to_builtins(supply))


def supply_from_json(kept: dict[str, Any]) -> Supply:
    """The supply from its stored form."""
    return msgspec.convert(kept, Supply)


def checked_profile(profile: Profile) -> Profile:
    """The validated profile. Raises Invalid, with a message for its author."""
    _check_party(profile.legal_name, profile.lines, profile.city, profile.email)
    if not _COUNTRY.fullmatch(profile.country):
        raise Invalid("the country is two capital letters, as IN")
    if profile.contact is not None and not _CONTACT.fullmatch(profile.contact):
        raise Invalid("the phone number has 8 to 15 digits, with + for the country's code")
    _check_postal_code(profile.postal_code, profile.country)
    if profile.gstin is not None:
        profile = msgspec.structs.replace(profile, gstin=_gstin(profile.gstin))
    customer = Customer(profile.country, profile.state, profile.gstin)
    try:  # any supplier's state works to validate the customer, before the operator has a profile
        supply_to(customer, supplier_state=next(iter(STATES)), has_lut=True)
    except SupplyRefused as error:
        raise Invalid(str(error)) from error
    return profile


def checked_supplier(own: Supplier) -> Supplier:
    """The validated profile of the operator. Raises Invalid."""
    _check_party(own.legal_name, own.lines, own.city, own.email)
    _check_postal_code(own.postal_code, INDIA)
    if own.state not in STATES:
        raise Invalid("the state is GST's code of two digits, as 29 for Karnataka")
    gstin = _gstin(own.gstin)
    if state_of(gstin) != own.state:
        raise Invalid("the GSTIN is of another state than the address")
    if not (own.sac.isascii() and own.sac.isdecimal() and 4 <= len(own.sac) <= 6):  # noqa: PLR2004 - a SAC's digits
        raise Invalid("a SAC has 4 to 6 digits")
    return msgspec.structs.replace(own, gstin=gstin)


def _check_party(name: str, lines: tuple[str, ...], city: str, email: str) -> None:
    texts = [("the legal name", name, MAX_NAME), ("the city", city, MAX_LINE)]
    texts += [("a line of the address", line, MAX_LINE) for line in lines]
    for what, text, longest in texts:
        if not text.strip() or len(text) > longest or not text.isprintable():
            raise Invalid(f"{what} has 1 to {longest} printable characters")
    if not 1 <= len(lines) <= 4:  # noqa: PLR2004 - what fits a document's head
        raise Invalid("an address has 1 to 4 lines")
    if len(email) > MAX_EMAIL or not _EMAIL.fullmatch(email):
        raise Invalid(f"the e-mail address has the form name@example.com, and {MAX_EMAIL} characters at most")


def _check_postal_code(code: str, country: str) -> None:
    if country == INDIA and not _PIN.fullmatch(code):
        raise Invalid("an Indian PIN code has six digits")
    if not 1 <= len(code) <= 12 or not code.isprintable():  # noqa: PLR2004 - longer than any country's
        raise Invalid("the postal code has 1 to 12 characters")


def _gstin(written: str) -> str:
    try:
        return checked_gstin(written)
    except WrongGstin as error:
        raise Invalid(f"the GSTIN: {error}") from error


async def find_supplier(session: AsyncSession) -> Supplier | None:
    """The operator's profile; None before it was set."""
    row = await session.get(OperatorProfile, 1, populate_existing=True)
    return None if row is None else msgspec.convert(row.profile, Supplier)


async def find_profile(session: AsyncSession, tenant_id: UUID) -> Profile | None:
    """The tenant's profile; None before it was set."""
    row = await session.get(BillingProfile, tenant_id, populate_existing=True)
    return None if row is None else msgspec.convert(row.profile, Profile)
