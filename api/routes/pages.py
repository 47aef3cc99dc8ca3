"""Pages: the chat at `/`. Nothing is loaded from elsewhere, and a strict policy says so to the browser."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader

from api.routes.access import RuntimeDep

router = APIRouter(include_in_schema=False)
_templates = Environment(loader=FileSystemLoader(Path(__file__).parents[1] / "pages" / "templates"), autoescape=True)
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


@router.get("/favicon.ico")
async def favicon() -> Response:
    """There is none, and a browser that asks is told so without an error."""
    return Response(status_code=204)


@router.get("/")
async def chat_page(runtime: RuntimeDep) -> HTMLResponse:
    """A chat to try it: streams `/chat` with the key that is typed in."""
    page = _templates.get_template("chat.html").render(model=runtime.settings.chat_model)
    return HTMLResponse(page, headers=_HEADERS)
