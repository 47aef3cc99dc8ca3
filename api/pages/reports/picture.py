"""The picture of a report: its bars with their labels and links. Pure.

Many days are drawn by the week or by the month, so that a bar is wide enough to be seen and touched on a phone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from markupsafe import Markup

from api.pages.charts import Bar, columns, rows
from api.pages.reports.drill import below, of_days
from api.pages.reports.view import Measure, View
from api.pages.reports.words import CLASSES, MEASURES
from api.schemas.usage.reports import Figures, FiguresReport, Group
from billing.gst.rupees import rupees
from billing.invoicing.report_prices import paise_of
from core.figures import grouped, short, usd

TOP = 20
_DAYS_AS_DAYS, _DAYS_AS_WEEKS = 31, 26 * 7
_WEEK = 7


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart; `legend` names the parts of its bars, `span` the time that each of them covers."""

    svg: Markup
    name: str
    legend: Sequence[str]
    span: str


def picture(report: FiguresReport, view: View) -> Picture | None:
    """The picture of a report; None for an empty one."""
    if not report.rows:
        return None
    name = MEASURES[view.measure]
    legend = CLASSES if view.measure == Measure.TOKENS else ()
    if view.group != Group.DAY:
        return Picture(rows(list(_by_name(report, view)), name=name), name, legend, "")
    span = "day" if view.days <= _DAYS_AS_DAYS else "week" if view.days <= _DAYS_AS_WEEKS else "month"
    return Picture(columns(list(_by_time(report, view, span)), name=name, tick=_tick(view)), name, legend, span)


def _by_name(report: FiguresReport, view: View) -> Iterator[Bar]:
    """Bars of the first rows, in the table's order, and of all others together."""
    for row in report.rows[:TOP]:
        name = row.named.label or row.named.name
        yield _bar(name, name, row.figures, view, below(view, row.key, row.named.name))
    if report.groups > TOP:
        name = "1 other" if report.groups == TOP + 1 else f"{grouped(report.groups - TOP)} others"
        yield replace(_bar(name, f"{name} together", report.others(TOP), view, None), is_rest=True)


def _by_time(report: FiguresReport, view: View, span: str) -> Iterator[Bar]:
    """Bars of all days, also of those without usage."""
    by_day = {row.key: row.figures for row in report.rows}
    first = view.first
    while first <= view.last:
        last = min(_end_of(first, span), view.last)
        days = [first + timedelta(days=after) for after in range((last - first).days + 1)]
        figures = sum((by_day[day] for day in days if day in by_day), Figures())
        label = f"{first:%b}" if span == "month" else f"{first.day} {first:%b}"
        words = _day(first) if first == last else f"{_day(first)} to {_day(last)}"
        yield _bar(label, words, figures, view, of_days(view, first, last))
        first = last + timedelta(days=1)


def _end_of(first: date, span: str) -> date:
    if span == "month":
        return (first.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return first if span == "day" else first + timedelta(days=_WEEK - 1)


def _bar(label: str, words: str, figures: Figures, view: View, href: str | None) -> Bar:
    if view.measure == Measure.TOKENS:
        classes = [
            f"{name.lower()}: {grouped(count)}" for name, count in zip(CLASSES, figures.by_class, strict=True) if count
        ]
        made_of = f" ({'; '.join(classes)})" if classes else ""
        title = f"{words}: {grouped(figures.tokens)} tokens{made_of}"
        return Bar(label, title, short(figures.tokens), figures.by_class, href)
    value: int = getattr(figures, view.measure.value)
    match view.measure:
        case Measure.COST:
            said = usd(value)
        case Measure.RATED:
            said = rupees(figures.rated_paise)
        case _:
            return Bar(label, f"{words}: {grouped(value)} {view.measure.value}", short(value), (value,), href)
    return Bar(label, f"{words}: {said}", said, (value,), href)


def _tick(view: View) -> Callable[[int], str]:
    """Writes a mark of the axis; cents and paise only where they are not 0."""
    match view.measure:
        case Measure.COST:
            return lambda nano: usd(nano).removesuffix(".00")
        case Measure.RATED:
            return lambda nano: rupees(paise_of(nano)).removesuffix(".00")
        case _:
            return short


def _day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"
