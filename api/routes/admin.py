"""The routers of the admin API: accounts, billing and usage.

A tenant's admin sees its own tenant. An id of another tenant and an unknown id get the same answer, to the byte; the
caller's scope is checked before any id is looked up.
"""

from api.routes import accounts, issuers, members
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

_MODULES = (
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
)
routers = tuple(module.router for module in _MODULES)
