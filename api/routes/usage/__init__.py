"""Routes of usage: a key's own usage and limits, and the admin API's prices, requests, corrections and reports.

`router` has the own usage; the others are of the admin API (`api.routes.admin`).
"""

from api.routes.usage.own_usage import router

__all__ = ["router"]
