"""Pages on which a tenant's admin manages its account. An operator, too, sees only its own tenant here."""

from api.pages.account import alerts, bills, keys, limits, overview, plan, profile
from api.pages.route import page_router

router = page_router()
for part in (overview, plan, profile, bills, keys, limits, alerts):
    router.include_router(part.router)
