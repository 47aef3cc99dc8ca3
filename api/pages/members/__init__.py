"""Pages of people who sign in: at the provider, by an invitation, in several accounts; and an account's members."""

from api.pages.members import listing, own_session, provider

routers = tuple(part.router for part in (provider, own_session, listing))
