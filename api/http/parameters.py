"""Refusal of unknown query parameters: a misspelt filter would otherwise return everything unnoticed."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

ANYTHING = "*"
"""Accepts any parameter, for a URL that third parties call and may add to."""
_known: dict[Callable[..., Any], frozenset[str]] = {}


class Reads:
    """A dependency that declares parameters which the route reads from the URL itself."""

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)

    async def __call__(self) -> None:
        """Does nothing: the route validates."""


async def refuse_unknown(request: Request) -> None:
    """Raises RequestValidationError naming parameters the route does not declare. A dependency of every route."""
    if not request.query_params:
        return
    route: APIRoute = request.scope["route"]
    known = _known.get(route.endpoint)
    if known is None:
        known = _known[route.endpoint] = _declared(route.dependant)
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown and ANYTHING not in known:
        raise RequestValidationError([{"type": "extra_forbidden", "loc": ("query", name)} for name in unknown])


def _declared(dependant: Dependant) -> frozenset[str]:
    own = {field.alias for field in dependant.query_params}
    if isinstance(dependant.call, Reads):
        own |= dependant.call.names
    return frozenset(own).union(*(_declared(each) for each in dependant.dependencies))
