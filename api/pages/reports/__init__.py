"""Pages of reports: usage as pictures and tables, the requests behind it, and the current minute."""

from api.pages.reports import live, requests, usage
from api.pages.route import page_router

router = page_router()
for part in (usage, requests, live):
    router.include_router(part.router)
