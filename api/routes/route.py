"""Routers of the JSON API. Each has its routes' whole path and all their dependencies.

None includes another: FastAPI works out a route again for each router that includes it, and does so in the process's
first request.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.params import Depends as Dependency

from api.http.parameters import refuse_unknown
from api.routes.answers import NO_TEXT, not_kept


def api_router(
    tag: str,
    prefix: str = "",
    *,
    dependencies: Sequence[Dependency] = (),
    is_described: bool = True,
    responses: dict[int | str, dict[str, Any]] | None = None,
) -> APIRouter:
    """A router whose routes refuse unknown parameters. `is_described`: OpenAPI lists them."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        dependencies=[Depends(refuse_unknown), *dependencies],
        include_in_schema=is_described,
        responses=responses,
    )


def uncached_router(tag: str, prefix: str) -> APIRouter:
    """A router whose answers may hold a key, and are not kept."""
    return api_router(tag, prefix, dependencies=[Depends(not_kept)], responses={400: NO_TEXT})


def admin_router(prefix: str = "") -> APIRouter:
    """A router of the admin API."""
    return uncached_router("admin", f"/v1/admin{prefix}")


def own_router(prefix: str = "") -> APIRouter:
    """A router of a tenant's own billing, under `/v1/billing`."""
    return uncached_router("billing", f"/v1/billing{prefix}")
