"""Values that a page shows once after a POST: refused forms with their faults, and secrets.

A POST answers with a redirect, so that a reload repeats nothing; what the next page has to show travels in a cookie
that no script reads, lives for two minutes, and is deleted when the page is shown. The server keeps nothing. A page
takes only what was left for its own path.
"""

import base64
import binascii
import json
import zlib
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.responses import RedirectResponse

from api.auth.credentials import is_secure
from api.pages.site import see_other

_SECURE, _PLAIN = "__Host-naka-once", "naka_once"
_LIFE_S = 120
_MAX = 3_800
"""Browsers keep a cookie of up to 4,096 bytes, with its name and attributes."""
_MAX_PLAIN = 64 * 1024
_TAKEN = "naka_once_taken"


def leave(request: Request, path: str, **shown: Any) -> RedirectResponse:
    """A redirect to `path`, whose page takes `shown`. Of more than a cookie can carry, `fields` are left out."""
    target = path.partition("?")[0]
    value = _packed({"for": target, **shown})
    if len(value) > _MAX:
        value = _packed({"for": target, **shown, "fields": {}})
    answer = see_other(path)
    name, secure = _cookie(request)
    answer.set_cookie(name, value, max_age=_LIFE_S, path="/", secure=secure, httponly=True, samesite="strict")
    return answer


def _packed(shown: dict[str, Any]) -> str:
    packed = zlib.compress(json.dumps(shown, ensure_ascii=False).encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def take(request: Request) -> dict[str, Any]:
    """The values left for this page, or none. `forget_taken` deletes them with the answer."""
    name, _ = _cookie(request)
    value = request.cookies.get(name)
    if not value:
        return {}
    try:
        packed = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        plain = zlib.decompressobj().decompress(packed, _MAX_PLAIN)
        shown = json.loads(plain)
    except (binascii.Error, zlib.error, ValueError):
        shown = {}
    if not isinstance(shown, dict) or shown.pop("for", None) != request.url.path:
        return {}
    setattr(request.state, _TAKEN, True)
    return shown


def forget_taken(request: Request, answer: Response) -> None:
    """Deletes the values that this request took."""
    if getattr(request.state, _TAKEN, False):
        name, secure = _cookie(request)
        answer.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")


def _cookie(request: Request) -> tuple[str, bool]:
    """The cookie's name on this site, and whether it is for https only: browsers accept `__Host-` nowhere else."""
    secure = is_secure(request.scope)
    return _SECURE if secure else _PLAIN, secure
