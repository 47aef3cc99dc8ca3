"""A route that answers people: what goes wrong in it is a page too, and whoever is not signed in is asked to."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData

from api.http.body import InvalidBody
from api.pages.site import refusal


class PageRequest(Request):
    """A request whose form has no NUL in it: no text of Postgres can hold one."""

    async def _get_form(self, **limits: Any) -> FormData:
        form = await super()._get_form(**limits)
        if any("\0" in text for pair in form.multi_items() for text in pair if isinstance(text, str)):
            raise InvalidBody("the form has a NUL in it")
        return form


class PageRoute(APIRoute):
    """Its errors are pages of words instead of problems in JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the net under it."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            asked = PageRequest(request.scope, request.receive)
            try:
                return await handle(asked)
            except Exception as error:  # noqa: BLE001 - an error nobody foresaw is logged where it gets its status
                return refusal(asked, error)

        return page


def page_router(prefix: str = "") -> APIRouter:
    """A router of pages: not in the API's description."""
    return APIRouter(prefix=prefix, include_in_schema=False, route_class=PageRoute, default_response_class=Response)
