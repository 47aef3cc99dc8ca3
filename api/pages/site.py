"""Rendering of every page: templates, their filters, the content security policy, and error pages.

Pages load nothing from other sites, contain no inline script or style, and are not cached: they show a person's data.
"""

from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from api.http.problems import problem_of, problem_response
from api.pages.visitor import Visitor, visitor_or_none
from billing.gst.rupees import rupees
from core.clock import to_datetime
from core.errors import NakaError, Unavailable
from core.figures import grouped, number_locale, short, usd
from core.tenancy.principal import Unauthenticated

_CHECKOUT = "https://checkout.razorpay.com https://api.razorpay.com"
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
_CHECKOUT_POLICY = {
    "script-src": f"'self' {_CHECKOUT} https://cdn.razorpay.com",
    "img-src": "'self' data: https://cdn.razorpay.com",
    "frame-src": _CHECKOUT,
    "style-src": "'self' 'unsafe-inline'",  # Razorpay Checkout adds inline styles
    "connect-src": f"'self' {_CHECKOUT} https://lumberjack.razorpay.com https://lumberjack-metrics.razorpay.com",
}
_CHECKOUT_HEADERS = {"cross-origin-opener-policy": "same-origin-allow-popups"}
"""A bank's window sends messages to the window that opened it."""
_HEADERS = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_PROGRAMS = ("/v1/", "/static/", "/webhooks/", "/metrics")
"""Addresses that programs call: their errors are never pages."""
_NEVER = "–"  # noqa: RUF001 - a dash, as in a table's empty cell


def render(
    request: Request,
    template: str,
    visitor: Visitor | None = None,
    *,
    status: int = 200,
    checkout: bool = False,
    **context: Any,
) -> HTMLResponse:
    """Renders a page. `checkout` allows Razorpay's script, on pages where customers pay."""
    zone = ZoneInfo(request.app.state.runtime.settings.timezone)
    page = _templates.get_template(template).render(visitor=visitor, path=request.url.path, here=Here(zone), **context)
    policy = _POLICY | (_CHECKOUT_POLICY if checkout else {})
    csp = "; ".join(f"{directive} {sources}" for directive, sources in policy.items())
    own = _HEADERS | (_CHECKOUT_HEADERS if checkout else {})
    return HTMLResponse(page, status, {**own, "content-security-policy": csp})


async def refusal(request: Request, error: Exception) -> Response:
    """The answer to an error: the sign-in page, or the error in words, with the visitor's navigation."""
    if isinstance(error, Unauthenticated) and request.method == "GET":
        if request.headers.get("sec-fetch-site") == "cross-site":
            # Browsers send no strict cookie with a link from another site (Razorpay's): load the page again from here.
            return render(request, "again.html", target=_here(request))
        return see_other(f"/sign-in?{urlencode({'next': _here(request)})}")
    problem = problem_of(error, request.scope)
    visitor = await visitor_or_none(request, is_away=isinstance(error, Unavailable))
    is_post, back = request.method == "POST", _back(request, visitor)
    page = render(
        request,
        "problem.html",
        visitor,
        status=problem.status,
        problem=problem.body,
        back=back,
        is_post=is_post,
        is_known=isinstance(error, NakaError),
    )
    page.headers.update(problem.headers)
    return page


async def answer_in_kind(request: Request, error: Exception) -> Response:
    """The answer to an error outside of pages: a page for a browser that opens an address, a problem for a program."""
    wants_page = "text/html" in request.headers.get("accept", "") and request.method in {"GET", "HEAD"}
    if wants_page and isinstance(error, HTTPException) and not request.url.path.startswith(_PROGRAMS):
        return await refusal(request, error)
    return problem_response(error, request.scope)


def see_other(path: str) -> RedirectResponse:
    """A redirect by GET after a POST, so that a reload posts nothing again."""
    return RedirectResponse(path, 303, {"cache-control": "no-store"})


class Here:
    """Formats moments in the operator's time zone."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def at(self, value: datetime | int | str | None) -> str:
        """Formats day and time, of milliseconds since 1970 or an ISO text."""
        local = self._local(value)
        return _NEVER if local is None else f"{local.day} {local:%b %Y}, {local:%H:%M}"

    def day(self, value: datetime | date | int | str | None) -> str:
        """Formats the day."""
        if isinstance(value, date) and not isinstance(value, datetime):
            return f"{value.day} {value:%b %Y}"
        local = self._local(value)
        return _NEVER if local is None else f"{local.day} {local:%b %Y}"

    def _local(self, value: datetime | int | str | None) -> datetime | None:
        match value:
            case None | "":
                return None
            case int():
                moment = to_datetime(value)
            case str():
                moment = datetime.fromisoformat(value)
            case _:
                moment = value
        return moment.astimezone(self._zone)


def share(part: int, whole: int) -> int:
    """The share in thousandths, from 0 to 1000, as bars are drawn."""
    return 0 if whole <= 0 else max(0, min(1000, part * 1000 // whole))


def sentence(text: str) -> str:
    """Formats an error's text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def words(name: str) -> str:
    """An identifier in words: `period_end` becomes `period end`."""
    return name.replace("_", " ").replace(".", " ").strip()


def _back(request: Request, visitor: Visitor | None) -> tuple[str, str]:
    """The link of an error page: the list that the address belongs to, else the first page of this visitor."""
    parts = request.url.path.strip("/").split("/")[:2]
    for count in range(len(parts), 0, -1):
        path = f"/{'/'.join(parts[:count])}"
        is_page = any(_answers(route, path) for route in request.app.routes)
        if is_page and (path != request.url.path or request.method == "POST") and not path.startswith(_PROGRAMS):
            return path, "Back"
    places = [] if visitor is None else visitor.places
    return places[0] if places else ("/sign-in", "Sign in")


def _answers(route: BaseRoute, path: str) -> bool:
    match, _ = route.matches({"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []})
    return match is Match.FULL


def _here(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


_loader = FileSystemLoader(Path(__file__).parent / "templates")
_templates = Environment(
    loader=_loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_templates.filters |= {"number": grouped, "short": short, "usd": usd, "rupees": rupees, "words": words}
_templates.globals |= {"share": share, "number_locale": number_locale}
