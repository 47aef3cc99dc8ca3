"""Routing, before authentication. An unknown path, or an id of the wrong length, has no route."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.razorpay.books import Books
from sandbox.razorpay.entities import Json

_PARTS = {":id": r"([a-z]+_[A-Za-z0-9]{14})", ":medium": r"(sms|email)"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request for a handler."""

    books: Books
    now: int
    ids: tuple[str, ...]
    body: Json
    query: Mapping[str, str]
    headers: Mapping[str, str]
    hidden_after: float
    """Lists hide entities younger than this."""


Handler = Callable[[Call], Any]


class Router:
    """The table of routes."""

    def __init__(self, table: Mapping[str, Handler]) -> None:
        """`routes` maps `METHOD /path/with/:id` to handlers."""
        self._table: list[tuple[str, re.Pattern[str], str, Handler]] = []
        for name, handler in table.items():
            method, _, path = name.partition(" ")
            pattern = "/".join(_PARTS.get(part, part) for part in path.split("/"))
            self._table.append((method, re.compile(pattern), name, handler))

    def find(self, method: str, path: str) -> tuple[str, Handler | None, tuple[str, ...]] | None:
        """The route's name, handler (None: method not allowed) and ids; None for an unknown path."""
        known = False
        for has, pattern, name, handler in self._table:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if has == method:
                return name, handler, match.groups()
            known = True
        return ("", None, ()) if known else None
