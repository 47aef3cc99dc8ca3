"""What a tenant's admin sees and decides of its own account, a module for each page. Nobody else's, whoever looks."""

from api.pages.account.alerts import router as alerts
from api.pages.account.bills import router as bills
from api.pages.account.keys import router as keys
from api.pages.account.limits import router as limits
from api.pages.account.overview import router as overview
from api.pages.account.plan import router as plan
from api.pages.account.profile import router as profile
from api.pages.route import page_router

router = page_router()
for part in (overview, plan, profile, bills, keys, limits, alerts):
    router.include_router(part)
