"""Validation of the profiles of customers and the operator."""

from typing import Any

import msgspec
import pytest

from billing.catalogue.profiles import (
    checked_profile,
    checked_supplier,
    find_supplier,
    get_profile,
    set_profile,
    set_supplier,
    supply_for,
    treatments_served,
)
from billing.context import BillingContext
from billing.gst.tax import Treatment
from core.errors import Invalid, NotFound
from core.ids import uuid7
from core.tenancy.audit import Actor
from tests.billing.operator import SUPPLIER, OperatorSetup, profile
from tests.harness import Books

ACTOR = Actor("test")
HOME, ABROAD = profile(), profile(None, "SG")
NO_LUT = msgspec.structs.replace(SUPPLIER, lut_number=None)
PARTY = [
    ({"legal_name": " "}, "the legal name has 1 to 100"),
    ({"legal_name": "x" * 101}, "the legal name has 1 to 100"),
    ({"city": "a\nb"}, "the city has 1 to 100"),
    ({"lines": ("",)}, "a line of the address has"),
    ({"lines": ()}, "1 to 4 lines"),
    ({"lines": ("x",) * 5}, "1 to 4 lines"),
    ({"email": "nobody"}, "the form name@example.com"),
    ({"email": f"a@{'x' * 70}.in"}, "the form name@example.com"),
    ({"postal_code": "012345"}, "PIN code has six digits"),
    ({"gstin": "29AAGCB7383J1Z5"}, "the GSTIN: check it for a typo"),
    ({"gstin": "29"}, "the GSTIN: a GSTIN is"),
]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        *PARTY,
        ({"country": "India"}, "two capital letters"),
        ({"contact": "call me"}, "8 to 15 digits"),
        ({"country": "SG", "postal_code": ""}, "1 to 12 characters"),
    ],
)
def test_a_customer_that_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        checked_profile(msgspec.structs.replace(HOME, **fields))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        *PARTY,
        ({"state": "99"}, "GST's code of two digits"),
        ({"state": "27"}, "another state than the address"),
        ({"sac": "99"}, "a SAC has 4 to 6 digits"),
        ({"sac": "99831x"}, "a SAC has 4 to 6 digits"),
    ],
)
def test_an_operator_that_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        checked_supplier(msgspec.structs.replace(SUPPLIER, **fields))


async def test_abroad_needs_a_letter_of_undertaking(context: BillingContext) -> None:
    tenant_id = await OperatorSetup(context).tenant()
    async with context.database.session() as session:
        await set_supplier(session, ACTOR, NO_LUT)
    async with context.database.session() as session:
        assert await treatments_served(session) == (Treatment.INTRA_STATE, Treatment.INTER_STATE)
        with pytest.raises(Invalid, match="no letter of undertaking"):
            await set_profile(session, ACTOR, tenant_id, ABROAD)
    async with context.database.session() as session:
        await set_supplier(session, ACTOR, SUPPLIER)
        await set_profile(session, ACTOR, tenant_id, ABROAD)
        assert (await supply_for(session, tenant_id)).treatment is Treatment.EXPORT
        assert await treatments_served(session) == tuple(Treatment)


async def test_without_a_party_nothing_can_be_billed(context: BillingContext) -> None:
    async with context.database.session() as session:
        assert (await find_supplier(session), await treatments_served(session)) == (None, ())
        with pytest.raises(NotFound, match="no billing profile"):
            await get_profile(session, uuid7())
        with pytest.raises(Invalid, match="no billing profile, which is required first"):
            await supply_for(session, uuid7())


async def test_a_change_is_in_the_audit_log(context: BillingContext, database_url: str) -> None:
    tenant_id = await OperatorSetup(context).tenant()
    for one in (HOME, msgspec.structs.replace(HOME, city="Hubli")):
        async with context.database.session() as session:
            await set_profile(session, ACTOR, tenant_id, one)
    books = Books(database_url)
    rows = await books.fetch("SELECT action FROM audit_log WHERE tenant_id = $1 ORDER BY id", tenant_id)
    await books.close()
    assert [row["action"] for row in rows][-2:] == ["billing.profile", "billing.profile"]
    async with context.database.session() as session:
        assert (await get_profile(session, tenant_id)).city == "Hubli"
