"""The organization's usage report of Anthropic's Admin API, from the ledger.

Usage counts in the UTC day in which the request was accepted, by the model of each inference. What is not charged,
such as a refusal without output (our assumption), is left out; an interrupted request counts as far as it went. Daily
buckets only, with or without grouping by model, service tier, geography and speed; anything else is a 400.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from starlette.datastructures import QueryParams

from core.clock import now_ms, to_datetime
from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.frames import Json
from sandbox.anthropic.inferences import Row
from sandbox.anthropic.ledger import Entry

_KNOWN = frozenset({"starting_at", "ending_at", "bucket_width", "group_by[]", "limit", "page"})
_DEFAULT_DAYS, _MOST_DAYS = 7, 31
_PAGE = "page_"
_GROUPS = ("model", "service_tier", "inference_geo", "speed")


def admin_key_of(api_key: str) -> str:
    """The admin key that goes with the simulator's key: the ordinary one is refused, as Anthropic does."""
    return f"admin-{api_key}"


@dataclass(frozen=True, slots=True)
class _Used:
    """The usage of one inference; `amounts` in the order of `_result`."""

    day: date
    group: tuple[str | None, ...]
    amounts: tuple[int, ...]


def usage_page(asked: QueryParams, entries: Iterable[Entry], rows: Iterable[Row]) -> Json:
    """One page of the report, from the requests still open and the inferences; raises `ApiError` (400)."""
    unknown = set(asked.keys()) - _KNOWN
    if unknown:
        raise ApiError(400, f"{min(unknown)}: the simulator does not know this parameter")
    if asked.get("bucket_width", "1d") != "1d":
        raise ApiError(400, "bucket_width: the simulator knows only 1d")
    groups = asked.getlist("group_by[]")
    if set(groups) - set(_GROUPS):
        raise ApiError(400, f"group_by: the simulator groups by {', '.join(_GROUPS)} only")
    start, end = _day("starting_at", asked.get("starting_at")), _end(asked.get("ending_at"))
    if end <= start:
        raise ApiError(400, "ending_at: must be after starting_at")
    limit = _limit(asked.get("limit"))
    first = _page_start(asked["page"], start, end) if "page" in asked else start
    days = [first + timedelta(days=n) for n in range(min(limit, (end - first).days))]
    more = days[-1] + timedelta(days=1) < end
    return {
        "data": _buckets(days, _used(entries, rows, groups)),
        "has_more": more,
        "next_page": _page_name(days[-1] + timedelta(days=1)) if more else None,
    }


def _used(entries: Iterable[Entry], rows: Iterable[Row], groups: Sequence[str]) -> Iterator[_Used]:
    """Yield what was charged so far."""
    for row in rows:
        if row.charged:
            yield _usage_of(row, row.web_searches, groups)
    for entry in entries:
        if entry.kind == "messages" and entry.state == "open":
            yield _usage_of(entry, 0, groups)


def _usage_of(used: Entry | Row, searches: int, groups: Sequence[str]) -> _Used:
    """Take the amounts; a request that is still open has only its model."""
    amounts = (used.input_tokens, used.cache_read_input_tokens, used.cache_creation_1h, used.cache_creation_5m)
    return _Used(
        day=datetime.fromtimestamp(used.started_ms / 1000, UTC).date(),
        group=tuple(getattr(used, name, None) if name in groups else None for name in _GROUPS),
        amounts=(*amounts, used.output_tokens, searches),
    )


def _buckets(days: Sequence[date], used: Iterable[_Used]) -> list[Json]:
    """A bucket for each day, also for those without usage."""
    sums: dict[tuple[date, tuple[str | None, ...]], tuple[int, ...]] = {}
    for each in used:
        if days[0] <= each.day <= days[-1]:
            had = sums.get((each.day, each.group), (0,) * len(each.amounts))
            sums[each.day, each.group] = tuple(a + b for a, b in zip(had, each.amounts, strict=True))
    return [
        {
            "starting_at": f"{day}T00:00:00Z",
            "ending_at": f"{day + timedelta(days=1)}T00:00:00Z",
            "results": [_result(group, sums[at, group]) for at, group in sorted(sums, key=repr) if at == day],
        }
        for day in days
    ]


def _result(group: Sequence[str | None], amounts: Sequence[int]) -> Json:
    uncached, read, written_1h, written_5m, output, searches = amounts
    return {
        "api_key_id": None,
        "workspace_id": None,
        **dict(zip(_GROUPS, group, strict=True)),
        "context_window": None,
        "uncached_input_tokens": uncached,
        "cache_creation": {"ephemeral_1h_input_tokens": written_1h, "ephemeral_5m_input_tokens": written_5m},
        "cache_read_input_tokens": read,
        "output_tokens": output,
        "server_tool_use": {"web_search_requests": searches},
    }


def _day(name: str, value: str | None) -> date:
    """The UTC day that an RFC 3339 time lies in."""
    try:
        at = datetime.fromisoformat(value or "")
    except ValueError as error:
        raise ApiError(400, f"{name}: must be an RFC 3339 date-time") from error
    return at.astimezone(UTC).date() if at.tzinfo else at.date()


def _end(value: str | None) -> date:
    """The day before which the report ends: tomorrow, unless it is told."""
    return to_datetime(now_ms()).date() + timedelta(days=1) if value is None else _day("ending_at", value)


def _limit(value: str | None) -> int:
    number = int(value) if value and value.isascii() and value.isdigit() else (_DEFAULT_DAYS if value is None else 0)
    if not 1 <= number <= _MOST_DAYS:
        raise ApiError(400, f"limit: must be between 1 and {_MOST_DAYS}")
    return number


def _page_name(first: date) -> str:
    return _PAGE + base64.urlsafe_b64encode(first.isoformat().encode()).decode()


def _page_start(page: str, start: date, end: date) -> date:
    try:
        first = date.fromisoformat(base64.urlsafe_b64decode(page.removeprefix(_PAGE)).decode())
    except (ValueError, binascii.Error) as error:
        raise ApiError(400, "page: not one that was given out") from error
    if not page.startswith(_PAGE) or not start <= first < end:
        raise ApiError(400, "page: not one that was given out")
    return first
