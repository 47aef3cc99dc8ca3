"""What every page has: the templates and how they say figures, a strict policy towards the browser, the refusal.

Nothing is loaded from elsewhere, no script or style stands in the markup, and no page is kept by a cache: what is on it
belongs to whoever signed in.
"""

from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.http.problems import problem_of
from api.pages.visitor import Visitor
from billing.gst.rupees import rupees
from core.clock import to_datetime
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
    "style-src": "'self' 'unsafe-inline'",  # Checkout writes styles of its own into the page
    "connect-src": f"'self' {_CHECKOUT} https://lumberjack.razorpay.com https://lumberjack-metrics.razorpay.com",
}
_CHECKOUT_HEADERS = {"cross-origin-opener-policy": "same-origin-allow-popups"}
"""A bank's window speaks to the one that opened it."""
_HEADERS = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_NANO = 1_000_000_000
_NEVER = "–"  # noqa: RUF001 - a dash, as in a table's empty cell
_EXACT_BELOW = 10_000


def render(
    request: Request,
    template: str,
    visitor: Visitor | None = None,
    *,
    status: int = 200,
    checkout: bool = False,
    **context: Any,
) -> HTMLResponse:
    """A page. `checkout` lets Razorpay's own script in, where a payment really happens."""
    zone = ZoneInfo(request.app.state.runtime.settings.timezone)
    page = _templates.get_template(template).render(visitor=visitor, path=request.url.path, here=Here(zone), **context)
    policy = _POLICY | (_CHECKOUT_POLICY if checkout else {})
    csp = "; ".join(f"{directive} {sources}" for directive, sources in policy.items())
    own = _HEADERS | (_CHECKOUT_HEADERS if checkout else {})
    return HTMLResponse(page, status, {**own, "content-security-policy": csp})


def refusal(request: Request, error: Exception, visitor: Visitor | None = None) -> Response:
    """What a person sees instead of a page: the way to sign in, or what went wrong in words."""
    if isinstance(error, Unauthenticated) and request.method == "GET":
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A strict cookie does not come along with a link from another site (Razorpay's): ask again from here.
            return render(request, "again.html", target=_here(request))
        return see_other(f"/sign-in?{urlencode({'next': _here(request)})}")
    problem = problem_of(error, request.scope)
    page = render(request, "problem.html", visitor, status=problem.status, problem=problem.body)
    page.headers.update(problem.headers)
    return page


def see_other(path: str) -> RedirectResponse:
    """On to another of our pages, by GET: what was posted is not posted again by a reload."""
    return RedirectResponse(path, 303, {"cache-control": "no-store"})


class Here:
    """Moments as the operator's clock says them."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def at(self, value: datetime | int | str | None) -> str:
        """Day and time; milliseconds since 1970 and ISO texts alike."""
        local = self._local(value)
        return _NEVER if local is None else f"{local.day} {local:%b %Y}, {local:%H:%M}"

    def day(self, value: datetime | date | int | str | None) -> str:
        """The day alone."""
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


def number(value: int) -> str:
    """With India's grouping: 12,34,567. By hand: a report has thousands of them, and Babel takes 30 us for each."""
    digits = str(abs(value))
    head, last = digits[:-3], digits[-3:]
    odd = len(head) % 2
    pairs = (head[at : at + 2] for at in range(odd, len(head), 2))
    return ("-" if value < 0 else "") + ",".join(part for part in (head[:odd], *pairs, last) if part)


def short(value: int) -> str:
    """A large count at a glance: 1.2 M; exact below ten thousand."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= max(size, _EXACT_BELOW):
            tenths = (2 * abs(value) * 10 + size) // (2 * size)
            return f"{'-' if value < 0 else ''}{tenths // 10}.{tenths % 10} {unit}"
    return number(value)


def usd(nano: int) -> str:
    """Dollars of nano-USD, to the cent; below one to four places, so that a little does not read as nothing."""
    places = 4 if 0 < abs(nano) < _NANO else 2
    unit = _NANO // 10**places
    whole, part = divmod((2 * abs(nano) + unit) // (2 * unit), 10**places)
    return f"{'-' if nano < 0 else ''}${whole:,}.{part:0{places}d}"


def share(part: int, whole: int) -> int:
    """In thousandths, from 0 to 1000: what a bar is drawn by."""
    return 0 if whole <= 0 else max(0, min(1000, part * 1000 // whole))


def words(name: str) -> str:
    """An identifier as a person reads it: `period_end` is `period end`."""
    return name.replace("_", " ").replace(".", " ").strip()


def _here(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"number": number, "short": short, "usd": usd, "rupees": rupees, "words": words}
    made.globals |= {"share": share}
    return made


_templates = _environment()
