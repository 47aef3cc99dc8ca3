"""The links of bars and rows: one level down each, until the requests themselves. Pure."""

from dataclasses import replace
from datetime import date
from typing import Any

from api.pages.reports.view import View
from api.schemas.usage.reports import Group


def below(view: View, key: Any, name: str) -> str | None:
    """The rows below a row: a day has users, a user or a key requests, a model users, a tenant or a tag days."""
    match view.group:
        case Group.DAY:
            return of_days(view, key, key)
        case Group.USER:
            return view.requests_url(user_id=key)
        case Group.KEY:
            return view.requests_url(key_id=key)
        case Group.MODEL:
            return view.url(model=key, group=Group.USER) if key else None
        case Group.TENANT:
            return view.url(tenant=name, group=Group.USER if view.days == 1 and view.tag is None else Group.DAY)
        case Group.TAG:
            by_day = replace(view, group=Group.DAY, order="day", is_falling=False, tag=(view.by_tag, key))
            return None if key is None else of_days(by_day, view.first, view.last)


def of_days(view: View, first: date, last: date) -> str:
    """Several days: each of them. A single day: its users, or the requests of a view of one user or key."""
    if first != last:
        return view.url(first=first, last=last)
    if view.user_id is not None or view.key_id is not None or view.tag is not None:
        return view.requests_url(first=first, last=last)
    return view.url(first=first, last=last, group=Group.USER)
