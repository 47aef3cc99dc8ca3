"""The sign-in page: a list of people to choose from."""

from collections.abc import Iterable, Mapping
from html import escape

from starlette.responses import HTMLResponse, Response

from sandbox.oidc.people import Person

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<link rel="icon" href="data:,">
<style>body {{ font: 1rem system-ui; margin: 3rem auto; max-width: 26rem; padding: 0 1rem }}
button {{ font: inherit; display: block; width: 100%; margin: .5rem 0; padding: .6rem; text-align: left }}
input {{ font: inherit; width: 100%; box-sizing: border-box; padding: .5rem }}</style></head>
<body><main><h1>{title}</h1>{body}<p><small>A simulated identity provider. Nothing leaves this machine.</small></p>
</main></body></html>
"""


def choice(people: Iterable[Person], query: Mapping[str, str]) -> Response:
    """The people, and a field for somebody else."""
    kept = "".join(
        f"<input type='hidden' name='{escape(name)}' value='{escape(value)}'>" for name, value in query.items()
    )
    buttons = "".join(
        f"<button name='person' value='{escape(each.email)}'>{escape(each.name)} ({escape(each.email)})</button>"
        for each in people
    )
    other = "<p><label>Somebody else <input name='email' type='email' placeholder='name@company.example'></label></p>"
    form = f"<form method='post' action='/authorize'>{kept}{buttons}{other}<button name='person' value=''>Sign in"
    cancel = "</button><button name='denied' value='yes'>Cancel</button></form>"
    return _page("Who are you?", f"{form}{cancel}")


def refused(description: str) -> Response:
    """A request that may not be answered to its sender."""
    return _page("This request cannot be answered", f"<p>{escape(description)}</p>", 400)


def _page(title: str, body: str, status: int = 200) -> Response:
    return HTMLResponse(_PAGE.format(title=escape(title), body=body), status)
