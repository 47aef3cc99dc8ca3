"""Images and PDFs: the size that a header tells, the tokens they weigh, and what is refused.

An image weighs one token for each 28 by 28 pixels, up to the most of its model; an image whose size cannot be read (by
URL, by file id, WebP, or broken) weighs the most. A PDF weighs a fixed figure for each page.
"""

import base64
import binascii
import re
import struct
from typing import Any

from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.models import Model

Json = dict[str, Any]

PDF_PAGE_TOKENS = 2_400
"""Text and image of a page; between the stated bounds."""
REMOTE_DOCUMENT_TOKENS = 12_000
"""A document by URL or file id, whatever it is."""
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

_TILE_PX = 28
_MAX_IMAGE_BYTES = 10 * 1024 * 1024
_MAX_PX, _MAX_PX_MANY, _MANY_IMAGES = 8_000, 2_000, 20
_MAX_PAGES = 600
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # JPEG's start-of-frame markers


def image_tokens(source: Json, model: Model) -> int:
    """Count the tokens of an image."""
    size = image_size(_bytes_of(source)) if source.get("type") == "base64" else None
    if size is None:
        return model.image_tokens
    return min(model.image_tokens, -(-size[0] // _TILE_PX) * -(-size[1] // _TILE_PX))


def pdf_tokens(source: Json) -> int:
    """Count the tokens of a PDF sent as base64."""
    return PDF_PAGE_TOKENS * pdf_pages(_bytes_of(source))


def pdf_pages(data: bytes) -> int:
    """Count the pages that can be seen without decompressing anything; at least one."""
    return max(1, len(_PAGE.findall(data)))


def check_image(source: Json, path: str, *, images: int) -> None:
    """Refuse an image sent as base64 that is of no known type, not base64, too large or too wide."""
    if source.get("media_type") not in IMAGE_TYPES:
        wanted = ", ".join(repr(name) for name in IMAGE_TYPES[:-1])
        raise ApiError(400, f"{path}.source.base64.media_type: Input should be {wanted} or {IMAGE_TYPES[-1]!r}")
    data = source.get("data")
    if not isinstance(data, str) or not data:
        raise ApiError(400, f"{path}.source.base64.data: Field required")
    if len(data) > _MAX_IMAGE_BYTES:
        raise ApiError(400, f"{path}.source.base64: image exceeds 10 MB maximum: {len(data)} bytes > 10485760 bytes")
    size = image_size(_checked(data, path))
    most = _MAX_PX_MANY if images > _MANY_IMAGES else _MAX_PX
    if size is not None and max(size) > most:
        raise ApiError(
            400,
            f"{path}.source.base64.data: At least one of the image dimensions exceed max allowed size: {most} pixels",
        )


def check_pdf(source: Json, path: str) -> None:
    """Refuse a PDF sent as base64 that is none, or has too many pages."""
    if source.get("media_type") != "application/pdf":
        raise ApiError(400, f"{path}.source.base64.media_type: Input should be 'application/pdf'")
    data = source.get("data")
    if not isinstance(data, str) or not data:
        raise ApiError(400, f"{path}.source.base64.data: Field required")
    raw = _checked(data, path)
    if not raw.lstrip().startswith(b"%PDF"):
        raise ApiError(400, f"{path}.source.base64.data: The PDF specified was not valid.")
    if pdf_pages(raw) > _MAX_PAGES:
        raise ApiError(400, f"A maximum of {_MAX_PAGES} PDF pages may be provided.")


def image_size(data: bytes) -> tuple[int, int] | None:
    """Read width and height from the head of a PNG, JPEG or GIF."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", data[16:24])
            return width, height
        if data[:6] in (b"GIF87a", b"GIF89a"):
            width, height = struct.unpack("<HH", data[6:10])
            return width, height
        return _jpeg_size(data) if data.startswith(b"\xff\xd8") else None
    except (struct.error, IndexError):
        return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk over the segments of a JPEG to its frame."""
    at = 2
    while data[at] == 0xFF:  # noqa: PLR2004 - every marker begins so
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        at += 2 + length
    return None


def _checked(data: str, path: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{path}.source.base64: invalid base64 data") from error


def _bytes_of(source: Json) -> bytes:
    """Decode what was checked before."""
    return base64.b64decode(source["data"])
