"""Pages of reports: usage as pictures and tables, the requests behind it, and the current minute."""

from api.pages.reports import live, requests, usage

routers = tuple(part.router for part in (usage, requests, live))
