"""The operator's pages: tenants and their wallets, money, mandates, coupons, webhooks, checks, audit log, catalogue."""

from api.pages.operator import (
    audit,
    catalogue,
    coupons,
    mandates,
    money,
    overview,
    reconciliation,
    tenants,
    wallets,
    webhooks,
)

routers = tuple(
    part.router
    for part in (overview, tenants, wallets, money, mandates, coupons, webhooks, reconciliation, audit, catalogue)
)
