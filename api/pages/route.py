"""Routes of pages: their errors are pages, and visitors without a session are sent to the sign-in page."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData

from api.http.body import InvalidBody
from api.http.parameters import refuse_unknown
from api.pages.once import forget_taken
from api.pages.site import refusal


class PageRequest(Request):
    """A request whose form contains no NUL, which Postgres cannot store in a text."""

    async def _get_form(self, **limits: Any) -> FormData:
        form = await super()._get_form(**limits)
        if any("\0" in text for pair in form.multi_items() for text in pair if isinstance(text, str)):
            raise InvalidBody("the form has a NUL in it")
        return form


class PageRoute(APIRoute):
    """A route whose errors are pages instead of problems in JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler with error pages."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            asked = PageRequest(request.scope, request.receive)
            try:
                answer = await handle(asked)
            except Exception as error:  # noqa: BLE001 - `problem_of` logs unknown errors
                return await refusal(asked, error)
            forget_taken(asked, answer)
            return answer

        return page


def page_router(prefix: str = "") -> APIRouter:
    """A router of pages, which OpenAPI does not list. Like those of `api.routes.route`, it has their whole path."""
    return APIRouter(
        prefix=prefix,
        include_in_schema=False,
        route_class=PageRoute,
        default_response_class=Response,
        dependencies=[Depends(refuse_unknown)],
    )
