"""A route that answers people: what goes wrong in it is a page too, and whoever is not signed in is asked to."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from api.pages.site import refusal
from core.errors import NakaError
from core.logs import get_logger

log = get_logger(__name__)


class PageRoute(APIRoute):
    """Its errors are pages of words instead of problems in JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the net under it."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                return await handle(request)
            except (NakaError, HTTPException, RequestValidationError) as error:
                return refusal(request, error)
            except Exception as error:
                log.exception("page_failed", path=request.url.path)
                return refusal(request, error)

        return page


def page_router(prefix: str = "") -> APIRouter:
    """A router of pages: not in the API's description."""
    return APIRouter(prefix=prefix, include_in_schema=False, route_class=PageRoute, default_response_class=Response)
