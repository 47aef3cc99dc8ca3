"""The models that a caller may use, with the provider's own details of them.

Allowed are the models on the price list that the key and the plan allow. Details (display name, window, capabilities)
come from the provider's list, at most an hour old. The provider down: the last ones known, else a model has its name
only, and the largest window.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from api.gateway.messages.prompt_bound import LARGEST_WINDOW_TOKENS
from api.gateway.stream_errors import UpstreamFault, WholeAnswer
from api.gateway.upstream.pool import UpstreamRequest
from core.clock import now_ms
from core.logs import get_logger
from core.resilience.shares import own_work
from core.tenancy.principal import Principal
from metering.admission.entitlements import Entitlements
from metering.pricing.price_list import PriceList

_FRESH_S = 3600.0
_AGAIN_S = 60.0
"""Seconds until the provider is asked again after a failure."""
_WAIT_S = 2.0
"""Claude Code waits 3 s for its list of models."""
_FETCH_S = 15.0
_PAGE = 10
_MAX_PAGES = 50
"""A model's details are a few kB, and a whole answer of the provider is read up to 64 kB."""
_HEADERS = ((b"anthropic-version", b"2023-06-01"),)
_DATED = re.compile(r"(.+)-\d{8}")

Details = dict[str, Any]
log = get_logger(__name__)


class Provider(Protocol):
    """The call to the provider; `Upstream` makes it."""

    async def fetch(self, request: UpstreamRequest) -> WholeAnswer:
        """Returns the whole answer of a small call. Raises UpstreamFault."""


class _Page(msgspec.Struct):
    data: list[Details]
    has_more: bool = False
    last_id: str | None = None


class ModelDetails:
    """The provider's details of its models. One per process."""

    def __init__(self, provider: Provider, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._known: dict[str, Details] = {}
        self._stale_at_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Ends a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def load(self) -> None:
        """Makes the details known, if the provider answers in time."""
        if self._refresh():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S):
                    await asyncio.shield(self._refresh_task())

    def of(self, model: str) -> Details:
        """Returns the model in Anthropic's form, as far as it is known."""
        known = self._known.get(model, {})
        return {**_minimal(model), **known, "id": model}

    def window_tokens(self, model: str) -> int:
        """Returns the most tokens of a prompt. Never waits: details that are not known yet are fetched meanwhile."""
        self._refresh()
        window = self._known.get(model, {}).get("max_input_tokens")
        return window if isinstance(window, int) and window > 0 else LARGEST_WINDOW_TOKENS

    def _refresh(self) -> bool:
        """Starts a fetch if the details are old; returns whether one is under way."""
        if self._fetching is None and self._clock() >= self._stale_at_s:
            self._refresh_task()
        return self._fetching is not None

    def _refresh_task(self) -> "asyncio.Task[None]":
        if self._fetching is None:
            with own_work():
                self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._note_end)
        return self._fetching

    def _note_end(self, _: "asyncio.Task[None]") -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_S):
                self._known = _with_aliases(await self._pages())
            self._stale_at_s = self._clock() + _FRESH_S
        except (UpstreamFault, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._stale_at_s = self._clock() + _AGAIN_S
            log.warning("models_not_read", error=type(error).__name__)

    async def _pages(self) -> list[Details]:
        models, after = list[Details](), ""
        for _ in range(_MAX_PAGES):
            target = f"/v1/models?limit={_PAGE}{after}".encode()
            answer = await self._provider.fetch(UpstreamRequest(_HEADERS, target=target, method=b"GET"))
            page = msgspec.json.decode(answer.body, type=_Page)
            models += page.data
            if not page.has_more or page.last_id is None or not _NAME.fullmatch(page.last_id):
                break
            after = f"&after_id={page.last_id}"
        return models


_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


def _with_aliases(models: list[Details]) -> dict[str, Details]:
    """Returns the details by name, also by the name without its date."""
    by_name = {str(model.get("id")): model for model in models}
    for name, model in list(by_name.items()):
        dated = _DATED.fullmatch(name)
        if dated is not None:
            by_name.setdefault(dated[1], model)
    return by_name


def _minimal(model: str) -> Details:
    return {
        "type": "model",
        "id": model,
        "display_name": model,
        "created_at": "1970-01-01T00:00:00Z",  # what the API says when a date is not known
        "lifecycle": "active",
        "max_input_tokens": None,
        "max_tokens": None,
        "capabilities": None,
    }


class AllowedModels:
    """The models that a caller may use. Postgres down: `Unavailable`, unless what it needs is cached."""

    def __init__(self, prices: PriceList, entitlements: Entitlements) -> None:
        self._prices = prices
        self._entitlements = entitlements

    async def require(self, principal: Principal, model: str) -> None:
        """Raises UnknownModel, or Forbidden for a model that the key or the plan does not allow."""
        principal.require_model(model)
        at_ms = now_ms()
        (await self._prices.book()).at(model, at_ms)
        timeline = await self._entitlements.of(principal.tenant_id, principal.user_id)
        timeline.at(at_ms).entitlement.require(model, ())

    async def of(self, principal: Principal) -> list[str]:
        """Returns the names of the models that have a price now, and that key and plan allow."""
        at_ms, book = now_ms(), await self._prices.book()
        timeline = await self._entitlements.of(principal.tenant_id, principal.user_id)
        plan = timeline.at(at_ms).entitlement
        names = (price.model for price in book.in_force(at_ms))
        return sorted(name for name in names if plan.allows_model(name) and principal.allows_model(name))
