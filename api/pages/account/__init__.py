"""Pages on which a tenant's admin manages its account. An operator, too, sees only its own tenant here."""

from api.pages.account import (
    alerts,
    bills,
    issuers,
    keys,
    limits,
    mandate,
    overview,
    plan,
    profile,
    tags,
    wallet,
)

routers = tuple(
    part.router for part in (overview, plan, mandate, profile, bills, wallet, keys, issuers, limits, tags, alerts)
)
