"""The view of a reports' page: days, group, order, subject and measure. Read from the URL and written back. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from api.schemas.moments import FIRST_YEAR, LAST_YEAR
from api.schemas.usage.reports import FiguresQuery, Group
from api.services.usage.days import MAX_DAYS
from core.errors import Invalid
from metering.counts import COUNT_COLUMNS
from metering.reports.usage_report import TAG_GROUP
from metering.tags.tags import MAX_VALUE_CHARS, TOKEN_KEY, is_key

PARAMETERS = ("from", "to", "group_by", "measure", "order", "tenant", "user_id", "key_id", "model", "tag")
"""Every parameter of a view."""
_TEXT_MAX = 200
_NOT_BY_TAG = (Group.USER, Group.KEY, Group.MODEL)
_YEAR_MONTHS = 12


class BadView(Invalid):
    """The URL asks for something that cannot be shown; the message is for a person."""


class Measure(StrEnum):
    """The sum that the picture shows."""

    TOKENS = "tokens"
    REQUESTS = "requests"
    ERRORS = "errors"
    COST = "cost_nano_usd"
    RATED = "rated_nano_paise"


ORDERS = (*COUNT_COLUMNS, "tokens", "errors", "rated_nano_paise")
"""The columns that a table can be sorted by, besides its groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View(FiguresQuery):
    """A report and its picture; `tenant` is a slug."""

    measure: Measure = Measure.TOKENS

    def covers(self, first: date, last: date) -> bool:
        """Whether these are its days."""
        return (self.first, self.last) == (first, last)

    def url(self, **changes: Any) -> str:
        """The page of this view, or of one that differs by `changes`; another group or measure has its usual order."""
        view = replace(self, **changes)
        anew = {"group", "measure"} & changes.keys() and "order" not in changes
        return f"/reports?{urlencode(view.query(with_order=not anew))}"

    def query(self, *, with_order: bool = True) -> dict[str, str]:
        """The parameters of the page."""
        named = {
            "from": self.first.isoformat(),
            "to": self.last.isoformat(),
            "group_by": self.group_name,
            "measure": self.measure.value if self.measure != Measure.TOKENS else None,
            "order": f"{'-' if self.is_falling else ''}{self.order}" if with_order and not self.is_as_usual else None,
            "tenant": self.tenant,
            "user_id": self.user_id,
            "key_id": self.key_id,
            "model": self.model,
            "tag": None if self.tag is None else "=".join(self.tag),
        }
        return {name: str(value) for name, value in named.items() if value is not None}

    def requests_url(self, *, cursor: object = None, **changes: Any) -> str:
        """The page of its requests, or of those of a view that differs by `changes`."""
        query = replace(self, **changes).requests_query()
        return f"/reports/requests?{urlencode(query if cursor is None else query | {'cursor': cursor})}"

    def requests_query(self) -> dict[str, str]:
        """The parameters of that page: a list of requests has no groups."""
        return {name: value for name, value in self.query().items() if name not in ("group_by", "measure", "order")}

    @property
    def usage_url(self) -> str:
        """The page of its usage, which is not added up by a tag for a single user, key or model."""
        return self.url(tag=None) if self.is_personal else self.url()

    @property
    def is_personal(self) -> bool:
        """Whether it is narrowed to what usage by a tag is not added up for."""
        return any(value is not None for value in (self.user_id, self.key_id, self.model))

    @property
    def is_as_usual(self) -> bool:
        """Whether it has the default order."""
        return (self.order, self.is_falling) == usual_order(self.group, self.measure)

    def sorted_by(self, column: str) -> str:
        """The page sorted by a column; in the other direction if it is sorted by that one already."""
        falls = not self.is_falling if column == self.order else column != self.group.value
        return self.url(order=column, is_falling=falls)


def usual_order(group: Group, measure: Measure) -> tuple[str, bool]:
    """Days in their order, all else with the highest first."""
    return ("day", False) if group == Group.DAY else (measure.value, True)


def require_added_up(view: View) -> None:
    """Raises BadView for a report that no rollup has."""
    is_by_tag = view.group == Group.TAG or view.tag is not None
    if is_by_tag and (view.is_personal or view.group in _NOT_BY_TAG or (view.group == Group.TAG and view.tag)):
        raise BadView("Usage by a tag can be shown by day, for all users, keys and models together.")


def read_view(asked: Mapping[str, str], today: date, *, sees_tenants: bool, sees_cost: bool) -> View:
    """The view that a URL asks for. Raises BadView.

    Without a range: this month. Without a group: a single day by user, more of them by day.
    """
    last = _day(asked, "to") or today
    first = _day(asked, "from") or min(last, today).replace(day=1)
    if first > last:
        raise BadView("The first day is after the last one.")
    if (last - first).days > MAX_DAYS:
        raise BadView(f"A report covers at most {MAX_DAYS + 1} days.")
    tag, by_tag = _tag(asked), _by_tag(asked)
    groups = [group.value for group in Group if group != Group.TAG and (sees_tenants or group != Group.TENANT)]
    usual = "user" if first == last and tag is None else "day"
    group = Group.TAG if by_tag else Group(_one_of(asked, "group_by", groups, usual))
    hidden = () if sees_cost else (Measure.COST.value,)
    measures = [measure.value for measure in Measure if measure.value not in hidden]
    measure = Measure(_one_of(asked, "measure", measures, "tokens"))
    order, falls = usual_order(group, measure)
    if "order" in asked:
        falls = asked["order"].startswith("-")
        orders = [*(order for order in ORDERS if order not in hidden), group.value]
        order = _one_of({"order": asked["order"].removeprefix("-")}, "order", orders, order)
    return View(
        first=first,
        last=last,
        group=group,
        measure=measure,
        order=order,
        is_falling=falls,
        tenant=_text(asked, "tenant"),
        user_id=read_id(asked, "user_id"),
        key_id=read_id(asked, "key_id"),
        model=_text(asked, "model"),
        tag=tag,
        by_tag=by_tag,
    )


def quick_ranges(today: date) -> list[tuple[str, date, date]]:
    """Ranges to choose from: (label, first day, last day)."""
    month = today.replace(day=1)
    month_before = (month - timedelta(days=1)).replace(day=1)
    months = month.year * _YEAR_MONTHS + month.month - _YEAR_MONTHS
    year = date(months // _YEAR_MONTHS, months % _YEAR_MONTHS + 1, 1)
    yesterday = today - timedelta(days=1)
    return [
        ("Today", today, today),
        ("Yesterday", yesterday, yesterday),
        ("7 days", today - timedelta(days=6), today),
        ("This month", month, today),
        ("Last month", month_before, month - timedelta(days=1)),
        ("12 months", year, today),
    ]


def read_id(asked: Mapping[str, str], name: str) -> UUID | None:
    """An id of the URL; None when there is none. Raises BadView."""
    if not asked.get(name):
        return None
    try:
        return UUID(asked[name])
    except ValueError:
        raise BadView(f"This link is broken: {name} is not an id.") from None


def _day(asked: Mapping[str, str], name: str) -> date | None:
    if not asked.get(name):
        return None
    try:
        day = date.fromisoformat(asked[name])
    except ValueError:
        raise BadView("Write a day as 2026-11-30.") from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise BadView(f"Choose days from {FIRST_YEAR} to {LAST_YEAR}.")
    return day


def _by_tag(asked: Mapping[str, str]) -> str:
    """The tag key of a report by tag, whose group is written as `tag:feature`; empty for another report."""
    group = asked.get("group_by", "")
    key = group.removeprefix(TAG_GROUP) if group.startswith(TAG_GROUP) else ""
    if key and key != TOKEN_KEY and not is_key(key):
        raise BadView("This link is broken: group_by has no valid tag.")
    return key


def _tag(asked: Mapping[str, str]) -> tuple[str, str] | None:
    """The tag that requests have; None for any. Raises BadView."""
    if not asked.get("tag"):
        return None
    key, equals, value = asked["tag"].partition("=")
    if not equals or not (is_key(key) or key == TOKEN_KEY) or not value or len(value) > MAX_VALUE_CHARS:
        raise BadView("Write a tag as feature=search.")
    if not value.isprintable():
        raise BadView("This link is broken: the tag has invalid characters.")
    return key, value


def _one_of(asked: Mapping[str, str], name: str, allowed: list[str], usual: str) -> str:
    value = asked.get(name) or usual
    if value not in allowed:
        raise BadView(f"This link is broken: {name} is one of {', '.join(allowed)}.")
    return value


def _text(asked: Mapping[str, str], name: str) -> str | None:
    value = asked.get(name, "").strip()
    if len(value) > _TEXT_MAX or not value.isprintable():
        raise BadView(f"This link is broken: {name} is too long or has invalid characters.")
    return value or None
