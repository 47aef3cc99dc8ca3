"""The provider over HTTP: its endpoints, and `/_sim` for tests."""

import asyncio
import base64
import binascii
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlencode

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.oidc import pages
from sandbox.oidc.faults import Fault
from sandbox.oidc.people import Person
from sandbox.oidc.provider import Provider, Refused

_NO_STORE = {"cache-control": "no-store"}
_ASKED = ("client_id", "redirect_uri", "response_type", "scope", "state", "nonce", "code_challenge")


class Simulator:
    """The handlers of one provider."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    async def discovery(self, request: Request) -> Response:
        """The metadata."""
        if not self.provider.issuer:
            self.provider.issuer = str(request.base_url).rstrip("/")
        fault = await self._struck("discovery")
        return fault or JSONResponse(self.provider.metadata())

    async def keys(self, _: Request) -> Response:
        """The key set."""
        return await self._struck("keys") or JSONResponse(self.provider.keys.public())

    async def authorize(self, request: Request) -> Response:
        """The list of people; a choice sends the browser back with a code."""
        form = await request.form() if request.method == "POST" else {}
        given = {**request.query_params, **{name: str(value) for name, value in form.items()}}
        query = {name: given[name] for name in (*_ASKED, "code_challenge_method") if name in given}
        try:
            redirect_uri = self.provider.read_client(query)
        except Refused as error:
            return pages.refused(str(error))
        try:
            asked = self.provider.read_request(query)
        except Refused as error:
            return self._back(redirect_uri, query, error=error.error, error_description=str(error))
        if request.method != "POST":
            return pages.choice(self.provider.people.values(), query)
        if "denied" in given:
            return self._back(redirect_uri, query, error="access_denied")
        email = given.get("person") or given.get("email", "")
        person = self.provider.people.get(email) or Person(email, email.partition("@")[0].title())
        if "@" not in email:
            return pages.choice(self.provider.people.values(), query)
        return self._back(redirect_uri, query, code=self.provider.grant(asked, person))

    async def token(self, request: Request) -> Response:
        """The tokens of a code."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        if not self.provider.knows_client(*_client_of(request, form)):
            answer = {"error": "invalid_client"}
            return JSONResponse(answer, 401, {**_NO_STORE, "www-authenticate": "Basic"})
        fault = self.provider.faults.next("token")
        struck = None if fault is None else await _strike(fault)
        if struck is not None:
            return struck
        try:
            return JSONResponse(self.provider.exchange(form, fault), headers=_NO_STORE)
        except Refused as error:
            return JSONResponse({"error": error.error, "error_description": str(error)}, 400, _NO_STORE)

    async def userinfo(self, request: Request) -> Response:
        """The claims of an access token's person."""
        struck = await self._struck("userinfo")
        if struck is not None:
            return struck
        try:
            access = request.headers.get("authorization", "").removeprefix("Bearer ")
            return JSONResponse(self.provider.userinfo(access), headers=_NO_STORE)
        except Refused as error:
            return JSONResponse({"error": error.error}, 401, {"www-authenticate": f'Bearer error="{error.error}"'})

    async def rotate(self, request: Request) -> Response:
        """`{"keep": bool}`: signs with a new key."""
        self.provider.keys.rotate(**(await request.json()))
        return JSONResponse(self.provider.keys.public())

    async def know(self, request: Request) -> Response:
        """`{"people": [...]}`: adds people, or replaces them."""
        people = msgspec.convert((await request.json())["people"], list[Person])
        self.provider.know(people)
        return JSONResponse({"people": [each.email for each in self.provider.people.values()]})

    async def order(self, request: Request) -> Response:
        """`{"faults": [...]}`, in place of those ordered before."""
        self.provider.faults.ordered = msgspec.convert((await request.json())["faults"], list[Fault])
        return JSONResponse({"ordered": len(self.provider.faults.ordered)})

    def _back(self, redirect_uri: str, query: dict[str, str], **more: str) -> Response:
        answer = {**more, "iss": self.provider.issuer} | ({"state": query["state"]} if "state" in query else {})
        joint = "&" if "?" in redirect_uri else "?"
        return RedirectResponse(f"{redirect_uri}{joint}{urlencode(answer)}", 303, _NO_STORE)

    async def _struck(self, endpoint: str) -> Response | None:
        fault = self.provider.faults.next(endpoint)
        return None if fault is None else await _strike(fault)


async def _strike(fault: Fault) -> Response | None:
    """The answer of a fault, if it has one."""
    await asyncio.sleep(fault.delay_s)
    if fault.location:
        return RedirectResponse(fault.location, 302)
    if fault.bytes:
        return Response(b" " * fault.bytes, fault.status or 200, media_type="application/json")
    return Response("no", fault.status) if fault.status else None


def _client_of(request: Request, form: dict[str, Any]) -> tuple[str, str]:
    """The client's credentials, by either method."""
    scheme, _, packed = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        client_id, _, secret = base64.b64decode(packed).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return unquote(client_id), unquote(secret)


def create_app(client_id: str, client_secret: str, *, issuer: str = "", people: Iterable[Person] = ()) -> Starlette:
    """A provider with one client. `issuer` empty: as it is first called."""
    provider = Provider(client_id, client_secret, issuer.rstrip("/"))
    provider.know(people)
    handlers = Simulator(provider)
    app = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", handlers.discovery),
            Route("/jwks", handlers.keys),
            Route("/authorize", handlers.authorize, methods=["GET", "POST"]),
            Route("/token", handlers.token, methods=["POST"]),
            Route("/userinfo", handlers.userinfo, methods=["GET", "POST"]),
            Route("/_sim/rotate", handlers.rotate, methods=["POST"]),
            Route("/_sim/people", handlers.know, methods=["POST"]),
            Route("/_sim/faults", handlers.order, methods=["POST"]),
        ]
    )
    app.state.provider = provider
    return app
