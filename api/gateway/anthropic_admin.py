"""Anthropic's Admin API, of which we ask one thing: the usage report, to hold our books against.

It takes a key of its own (`sk-ant-admin...`), which may see the whole organization and is never logged. The report is
fresh within minutes; it counts everything that the organization did, also past Naka. Tries are bounded, and wait as
they are told. Source: platform.claude.com, Admin API, "Get Messages Usage Report"; the SDK has no method for it.
"""

import asyncio
import math
from datetime import date, datetime, timedelta
from typing import Any

import httpx2
import msgspec
from pydantic import SecretStr

from core.errors import NakaError
from core.logs import get_logger
from metering.reconciliation.provider_usage import Reported

_PATH = "/v1/organizations/usage_report/messages"
_VERSION = "2023-06-01"
_TIMEOUT_S = 30
_TRIES = 4
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_DAYS_A_PAGE = 31  # the most that the API gives at a time
_MOST_PAGES = 200
_MOST_BYTES = 16_000_000
_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504, 529})

log = get_logger(__name__)


class ReportUnavailable(NakaError):
    """Anthropic did not give its usage report; the message says why, and never the key."""


class _Writes(msgspec.Struct):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class _Result(msgspec.Struct):
    model: str | None = None
    uncached_input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: _Writes = msgspec.field(default_factory=_Writes)


class _Bucket(msgspec.Struct):
    starting_at: datetime
    results: list[_Result]


class _Page(msgspec.Struct):
    data: list[_Bucket]
    has_more: bool = False
    next_page: str | None = None


class AnthropicAdmin:
    """The client. Close it at the end."""

    def __init__(self, base_url: str, admin_key: SecretStr, *, proxy: str | None = None) -> None:
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            headers={"x-api-key": admin_key.get_secret_value(), "anthropic-version": _VERSION, "user-agent": "naka"},
            timeout=_TIMEOUT_S,
            trust_env=False,
            proxy=proxy,
        )

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.aclose()

    async def usage(self, first: date, days: int) -> list[Reported]:
        """What was used from `first` on (a UTC day), a row for each day and model. Raises ReportUnavailable."""
        asked: dict[str, Any] = {
            "starting_at": f"{first}T00:00:00Z",
            "ending_at": f"{first + timedelta(days=days)}T00:00:00Z",
            "bucket_width": "1d",
            "group_by[]": "model",
            "limit": _DAYS_A_PAGE,
        }
        found: dict[tuple[date, str], tuple[int, ...]] = {}
        for _ in range(_MOST_PAGES):
            page = await self._page(asked)
            for bucket in page.data:
                for result in bucket.results:
                    at = (bucket.starting_at.date(), result.model or "")
                    had = found.get(at, (0,) * 5)
                    found[at] = tuple(a + b for a, b in zip(had, _tokens(result), strict=True))
            if not page.has_more or page.next_page is None:
                return [Reported(day, model, tokens) for (day, model), tokens in found.items()]
            asked["page"] = page.next_page
        raise ReportUnavailable("Anthropic's usage report has no end")

    async def _page(self, asked: dict[str, Any]) -> _Page:
        answer = await self._ask(asked)
        try:
            return msgspec.json.decode(answer, type=_Page)
        except msgspec.MsgspecError as error:
            raise ReportUnavailable("Anthropic's usage report has a form that we do not know") from error

    async def _ask(self, asked: dict[str, Any]) -> bytes:
        """The body of a 200, after as many tries as it takes, and is polite."""
        for tries in range(1, _TRIES + 1):
            backoff = min(_FIRST_WAIT_S * 2 ** (tries - 1), _LONGEST_WAIT_S)
            try:
                async with self._http.stream("GET", _PATH, params=asked) as response:
                    if response.status_code == httpx2.codes.OK:
                        return await _bounded(response)
                    wait_s = _wait_s(response, backoff)
                    why = f"it answers {response.status_code}"
            except httpx2.HTTPError as error:
                wait_s, why = backoff, f"it cannot be reached ({type(error).__name__})"
            if wait_s is None or tries == _TRIES:
                raise ReportUnavailable(f"Anthropic's usage report: {why}")
            log.info("usage_report_retry", tries=tries, wait_s=wait_s)
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")


def _tokens(result: _Result) -> tuple[int, ...]:
    """In the order of metering.reconciliation.provider_usage.TOKENS."""
    return (
        result.uncached_input_tokens,
        result.output_tokens,
        result.cache_read_input_tokens,
        result.cache_creation.ephemeral_5m_input_tokens,
        result.cache_creation.ephemeral_1h_input_tokens,
    )


def _wait_s(response: httpx2.Response, backoff_s: float) -> float | None:
    """Seconds before the next try; None when there must be none: not retryable, or to be waited for too long."""
    if response.status_code not in _RETRYABLE:
        return None
    try:
        told = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return backoff_s
    return max(told, 0.05) if math.isfinite(told) and told <= _LONGEST_WAIT_S else None


async def _bounded(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise ReportUnavailable("Anthropic's usage report is larger than any that we would believe")
    return bytes(body)
