"""The router of the admin API, composed of the routes of accounts, billing and usage.

A tenant's admin sees its own tenant. An id of another tenant and an unknown id get the same answer, to the byte; the
caller's scope is checked before any id is looked up.
"""

from fastapi import APIRouter, Depends

from api.routes import accounts, issuers, members
from api.routes.answers import NO_TEXT, not_kept
from api.routes.billing import (
    alerts,
    bills,
    catalogue,
    ledger,
    mandates,
    money,
    standing,
    subscriptions,
    wallets,
)
from api.routes.usage import corrections, prices, reports, requests, tag_limits, tags

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[Depends(not_kept)], responses={400: NO_TEXT})
for module in (
    accounts,
    issuers,
    members,
    prices,
    requests,
    corrections,
    reports,
    tags,
    tag_limits,
    catalogue,
    subscriptions,
    mandates,
    standing,
    alerts,
    bills,
    money,
    wallets,
    ledger,
):
    router.include_router(module.router)
