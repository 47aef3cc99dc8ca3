"""Where a bar or a row leads to: one level down, until it is the requests themselves. Pure."""

from datetime import date
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from api.pages.reports.view import Group, View


def below(view: View, key: Any, name: str) -> str | None:
    """What a row is made of: a day of users, a user or a key of requests, a model of users, a tenant of days."""
    match view.group:
        case Group.DAY:
            return of_days(view, key, key)
        case Group.USER:
            return requests_url(view, user_id=key)
        case Group.KEY:
            return requests_url(view, key_id=key)
        case Group.MODEL:
            return view.url(model=key, group=Group.USER) if key else None
        case Group.TENANT:
            return view.url(tenant=name, group=Group.USER if view.days == 1 else Group.DAY)


def of_days(view: View, first: date, last: date) -> str:
    """Some of the days: each of them; a single day: its users, or the requests if it is about one of those only."""
    if first != last:
        return view.url(first=first, last=last)
    if view.user_id is not None or view.key_id is not None:
        return requests_url(view, first=first, last=last)
    return view.url(first=first, last=last, group=Group.USER)


def requests_url(
    view: View,
    *,
    user_id: UUID | None = None,
    key_id: UUID | None = None,
    first: date | None = None,
    last: date | None = None,
) -> str:
    """The requests behind a view."""
    named = {
        "from": first or view.first,
        "to": last or view.last,
        "tenant": view.tenant,
        "user_id": user_id or view.user_id,
        "key_id": key_id or view.key_id,
        "model": view.model,
    }
    return f"/reports/requests?{urlencode({name: value for name, value in named.items() if value is not None})}"
