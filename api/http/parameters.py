"""Query parameters: one that a route does not know is refused, as a field of a body is.

A misspelt filter would otherwise answer with everything, and nobody would notice.
"""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

ANYTHING = "*"
"""For a route whose URL is somebody else's to call: what they add to it is ignored."""
_known: dict[Callable[..., Any], frozenset[str]] = {}


class Reads:
    """A dependency that declares parameters which its route reads from the URL by itself."""

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)

    async def __call__(self) -> None:
        """Checks nothing: the route does."""


async def refuse_unknown(request: Request) -> None:
    """Raises RequestValidationError for each parameter that the route does not declare. A dependency of every route."""
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
