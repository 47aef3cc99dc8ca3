"""Client of Anthropic's Admin API: the usage report, which reconciliation compares with our own records.

It needs an admin key (`sk-ant-admin...`), which reads the whole organization and is never logged. The report lags by
minutes and includes usage outside of Naka. Retries are bounded and follow `Retry-After`. Source: platform.claude.com,
Admin API, "Get Messages Usage Report"; the SDK has no method for it.
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
from core.resilience.backoff import Backoff
from metering.reconciliation.provider_usage import COMPARED, Reported

_PATH = "/v1/organizations/usage_report/messages"
_VERSION = "2023-06-01"
_TIMEOUT_S = 30
_TRIES = 4
_BACKOFF = Backoff(0.5, 30.0)
_DAYS_PER_PAGE = 31  # the API's maximum
_MAX_PAGES = 200
_MAX_BYTES = 16_000_000
_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504, 529})

log = get_logger(__name__)


class ReportUnavailable(NakaError):
    """The usage report could not be read. The message gives the reason and never the key."""


class _Writes(msgspec.Struct):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class _ServerToolUse(msgspec.Struct):
    web_search_requests: int = 0


class _Result(msgspec.Struct):
    model: str | None = None
    uncached_input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: _Writes = msgspec.field(default_factory=_Writes)
    server_tool_use: _ServerToolUse = msgspec.field(default_factory=_ServerToolUse)


class _Bucket(msgspec.Struct):
    starting_at: datetime
    results: list[_Result]


class _Page(msgspec.Struct):
    data: list[_Bucket]
    has_more: bool = False
    next_page: str | None = None


class AnthropicAdmin:
    """The client. Call `close` when done."""

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
        """Returns usage per day and model for `days` UTC days from `first` on. Raises ReportUnavailable."""
        parameters: dict[str, Any] = {
            "starting_at": f"{first}T00:00:00Z",
            "ending_at": f"{first + timedelta(days=days)}T00:00:00Z",
            "bucket_width": "1d",
            "group_by[]": "model",
            "limit": _DAYS_PER_PAGE,
        }
        usage: dict[tuple[date, str], tuple[int, ...]] = {}
        for _ in range(_MAX_PAGES):
            page = await self._page(parameters)
            for bucket in page.data:
                for result in bucket.results:
                    key = (bucket.starting_at.date(), result.model or "")
                    sums = usage.get(key, (0,) * len(COMPARED))
                    usage[key] = tuple(a + b for a, b in zip(sums, _counts(result), strict=True))
            if not page.has_more or page.next_page is None:
                return [Reported(day, model, counts) for (day, model), counts in usage.items()]
            parameters["page"] = page.next_page
        raise ReportUnavailable(f"Anthropic's usage report has more than {_MAX_PAGES} pages")

    async def _page(self, parameters: dict[str, Any]) -> _Page:
        body = await self._get(parameters)
        try:
            return msgspec.json.decode(body, type=_Page)
        except msgspec.MsgspecError as error:
            raise ReportUnavailable("Anthropic's usage report has an unknown format") from error

    async def _get(self, parameters: dict[str, Any]) -> bytes:
        """Returns the body of a 200, retrying retryable failures."""
        for tries in range(1, _TRIES + 1):
            backoff_s = _BACKOFF.wait_s(tries - 1)
            try:
                async with self._http.stream("GET", _PATH, params=parameters) as response:
                    if response.status_code == httpx2.codes.OK:
                        return await _read_bounded(response)
                    wait_s = _wait_s(response, backoff_s)
                    reason = f"status {response.status_code}"
            except httpx2.HTTPError as error:
                wait_s, reason = backoff_s, f"it cannot be reached ({type(error).__name__})"
            if wait_s is None or tries == _TRIES:
                raise ReportUnavailable(f"Anthropic's usage report: {reason}")
            log.info("usage_report_retry", tries=tries, wait_s=wait_s)
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")


def _counts(result: _Result) -> tuple[int, ...]:
    """Returns the counts in the order of COMPARED."""
    return (
        result.uncached_input_tokens,
        result.output_tokens,
        result.cache_read_input_tokens,
        result.cache_creation.ephemeral_5m_input_tokens,
        result.cache_creation.ephemeral_1h_input_tokens,
        result.server_tool_use.web_search_requests,
    )


def _wait_s(response: httpx2.Response, backoff_s: float) -> float | None:
    """Returns seconds before the next try; None for no retry: not retryable, or `Retry-After` is too long."""
    if response.status_code not in _RETRYABLE:
        return None
    try:
        retry_after_s = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return backoff_s
    if not math.isfinite(retry_after_s) or retry_after_s > _BACKOFF.longest_s:
        return None
    return max(retry_after_s, 0.05)


async def _read_bounded(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise ReportUnavailable(f"Anthropic's usage report has more than {_MAX_BYTES} bytes")
    return bytes(body)
