"""Properties that the answers of several routers share."""

from typing import Any

from fastapi import Response


def not_kept(response: Response) -> None:
    """Forbids caching: some of these answers hold a key."""
    response.headers["cache-control"] = "no-store"


PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
NO_TEXT: dict[str, Any] = {"description": "The body is not UTF-8", "content": PROBLEM}
