"""The admin API: what an operator and a tenant's admin set up and look up, a module for each thing.

A tenant's admin sees its own tenant. An id of another tenant answers as an id that does not exist, to the byte; who may
call at all is decided before any id is looked up. Each request is one transaction, with its audit entry in it; the
other processes are told after the commit.
"""

from typing import Any

from fastapi import APIRouter, Depends, Response

from api.routes.admin import (
    audit,
    billing_lists,
    bills,
    charges,
    corrections,
    keys,
    limits,
    plans,
    prices,
    privacy,
    profiles,
    refunds,
    reports,
    requests,
    tenants,
    users,
    webhooks,
)


def not_kept(response: Response) -> None:
    """No cache on the way keeps an admin's answer: some hold a key."""
    response.headers["cache-control"] = "no-store"


NO_TEXT: dict[str, Any] = {
    "description": "The body is not UTF-8",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[Depends(not_kept)], responses={400: NO_TEXT})
_MODULES = (tenants, users, keys, limits, plans, prices, requests, corrections, reports, audit)
_BILLING = (profiles, billing_lists, bills, charges, refunds, webhooks)
for module in (*_MODULES, *_BILLING, privacy):
    router.include_router(module.router)
