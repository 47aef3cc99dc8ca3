"""The operator's pages: tenants, money, findings, webhooks, reconciliation, audit log, catalogue."""

from api.pages.operator import audit, catalogue, money, overview, reconciliation, tenants, webhooks
from api.pages.route import page_router

router = page_router()
for part in (overview, tenants, money, webhooks, reconciliation, audit, catalogue):
    router.include_router(part.router)
