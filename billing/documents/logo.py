"""The operator's logo on documents: a PNG or JPEG file named by INVOICE_LOGO.

A file that is missing, too large or of another kind is left out with a warning: an invoice must not fail for it.
"""

from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from core.logs import get_logger

_MAX_BYTES = 500_000
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Logo:
    """An image."""

    media_type: str
    content: bytes

    @property
    def url(self) -> str:
        """The image in a page that loads nothing."""
        return f"data:{self.media_type};base64,{b64encode(self.content).decode()}"


@lru_cache(maxsize=4)
def read_logo(path: Path | None) -> Logo | None:
    """The logo, read once per process; None without one."""
    if path is None:
        return None
    try:
        content = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    except OSError as error:
        log.warning("invoice_logo_unreadable", path=str(path), error=str(error))
        return None
    kind = next((kind for start, kind in _SIGNATURES.items() if content.startswith(start)), None)
    if kind is None:
        log.warning("invoice_logo_refused", path=str(path), needs=f"PNG or JPEG of at most {_MAX_BYTES} bytes")
        return None
    return Logo(kind, content)
