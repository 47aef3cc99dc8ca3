"""The organization's usage report of Anthropic's Admin API, from the ledger.

Usage counts in the UTC day in which the request was accepted, by the echoed model. A refusal without output is not
charged (our assumption) and left out; an interrupted request counts as far as it went. Daily buckets only, with or
without grouping by model; anything else is a 400.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

from starlette.datastructures import QueryParams

from sandbox.anthropic.frames import Json
from sandbox.anthropic.ledger import Entry
from sandbox.anthropic.request import ApiError

_KNOWN = frozenset({"starting_at", "ending_at", "bucket_width", "group_by[]", "limit", "page"})
_DEFAULT_DAYS, _MOST_DAYS = 7, 31
_PAGE = "page_"


def admin_key_of(api_key: str) -> str:
    """The admin key that goes with the simulator's key: the ordinary one is refused, as Anthropic does."""
    return f"admin-{api_key}"


def usage_page(asked: QueryParams, entries: Iterable[Entry]) -> Json:
    """One page of the report; raises `ApiError` (400)."""
    unknown = set(asked.keys()) - _KNOWN
    if unknown:
        raise ApiError(400, f"{min(unknown)}: the simulator does not know this parameter")
    if asked.get("bucket_width", "1d") != "1d":
        raise ApiError(400, "bucket_width: the simulator knows only 1d")
    groups = asked.getlist("group_by[]")
    if groups not in ([], ["model"]):
        raise ApiError(400, "group_by: the simulator groups by model only")
    start, end = _day("starting_at", asked.get("starting_at")), _end(asked.get("ending_at"))
    if end <= start:
        raise ApiError(400, "ending_at: must be after starting_at")
    limit = _limit(asked.get("limit"))
    first = _page_start(asked["page"], start, end) if "page" in asked else start
    days = [first + timedelta(days=n) for n in range(min(limit, (end - first).days))]
    more = days[-1] + timedelta(days=1) < end
    return {
        "data": _buckets(days, entries, by_model=bool(groups)),
        "has_more": more,
        "next_page": _page_name(days[-1] + timedelta(days=1)) if more else None,
    }


def _buckets(days: Sequence[date], entries: Iterable[Entry], *, by_model: bool) -> list[Json]:
    """A bucket for each day, also for those without usage."""
    sums: dict[tuple[date, str | None], list[int]] = {}
    for entry in entries:
        day = datetime.fromtimestamp(entry.started_ms / 1000, UTC).date()
        refused = entry.stop_reason == "refusal" and entry.output_tokens == 0
        if entry.kind == "messages" and entry.status == 200 and not refused and days[0] <= day <= days[-1]:  # noqa: PLR2004
            had = sums.setdefault((day, entry.model if by_model else None), [0] * 5)
            for index, amount in enumerate(_amounts(entry)):
                had[index] += amount
    return [
        {
            "starting_at": f"{day}T00:00:00Z",
            "ending_at": f"{day + timedelta(days=1)}T00:00:00Z",
            "results": [_result(model, sums[at, model]) for at, model in sorted(sums, key=repr) if at == day],
        }
        for day in days
    ]


def _amounts(entry: Entry) -> tuple[int, ...]:
    return (
        entry.input_tokens,
        entry.cache_read_input_tokens,
        entry.cache_creation_1h,
        entry.cache_creation_5m,
        entry.output_tokens,
    )


def _result(model: str | None, amounts: Sequence[int]) -> Json:
    uncached, read, written_1h, written_5m, output = amounts
    return {
        "api_key_id": None,
        "workspace_id": None,
        "model": model,
        "service_tier": None,
        "context_window": None,
        "uncached_input_tokens": uncached,
        "cache_creation": {"ephemeral_1h_input_tokens": written_1h, "ephemeral_5m_input_tokens": written_5m},
        "cache_read_input_tokens": read,
        "output_tokens": output,
        "server_tool_use": {"web_search_requests": 0},
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
    return datetime.now(UTC).date() + timedelta(days=1) if value is None else _day("ending_at", value)


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
