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
from api.pages.route import page_router

router = page_router()
for part in (overview, tenants, wallets, money, mandates, coupons, webhooks, reconciliation, audit, catalogue):
    router.include_router(part.router)
