"""Pages of people who sign in: at the provider, by an invitation, in several accounts; and an account's members."""

from api.pages.members import listing, own_session, provider
from api.pages.route import page_router

router = page_router()
for part in (provider, own_session, listing):
    router.include_router(part.router)
