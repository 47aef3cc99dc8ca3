"""A product that uses an example of `examples/backends`: `python -m tests.journeys.backends FRAMEWORK FORM PORT`.

Its sign-in is a stub: everybody is USER. The example itself runs unchanged.
"""

import importlib
import sys
from typing import Any

import uvicorn

USER = "Ada Łovelace, आदा"


class _User:
    def get_username(self) -> str:
        return USER


async def _user() -> _User:
    return _User()


def fastapi_app(form: str) -> Any:
    """An application of FastAPI."""
    from fastapi import FastAPI  # noqa: PLC0415 - one of two frameworks

    app = FastAPI()
    app.include_router(importlib.import_module(f"examples.backends.fastapi_{form}").router)

    async def signed_in(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["user"] = USER
        await app(scope, receive, send)

    return signed_in


def sign_in(get_response: Any) -> Any:
    """The sign-in of Django's application."""

    async def middleware(request: Any) -> Any:
        request.auser = _user
        return await get_response(request)

    return middleware


def django_app(form: str) -> Any:
    """An application of Django."""
    from django.conf import settings  # noqa: PLC0415 - as above
    from django.core.asgi import get_asgi_application  # noqa: PLC0415
    from django.urls import path  # noqa: PLC0415
    from django.utils.decorators import async_only_middleware  # noqa: PLC0415

    async_only_middleware(sign_in)
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "tests.journeys.backends.sign_in"],
        ROOT_URLCONF="tests.journeys.backends",
        SECRET_KEY="only-for-this-test",
    )
    views = importlib.import_module(f"examples.backends.django_{form}")
    routes = {"chat": "chat", "chat-token": "chat_token", ".well-known/jwks.json": "jwks"}
    here = importlib.import_module("tests.journeys.backends")
    here.urlpatterns = [  # type: ignore[attr-defined]
        path(route, getattr(views, view)) for route, view in routes.items() if hasattr(views, view)
    ]
    async_only_middleware(here.sign_in)
    return get_asgi_application()


def main() -> None:
    """Serves it."""
    framework, form, port = sys.argv[1:]
    app = {"fastapi": fastapi_app, "django": django_app}[framework](form)
    uvicorn.run(app, port=int(port), log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
