"""Routes of Anthropic's API beside messages: the models, what is never offered, and Claude Code's greeting.

Not in our own description of the API: Anthropic's SDKs have theirs.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Query, Request
from starlette.responses import Response

from api.auth.access import RuntimeDep, acting_caller_of
from api.gateway.messages.features import NotOffered
from api.http.parameters import ANYTHING, Reads
from api.routes.route import api_router
from api.runtime import Runtime
from core.errors import Invalid, NotFound
from core.tenancy.principal import Principal, Scope

_ANY = [Depends(Reads(ANYTHING))]  # clients add parameters of their own (`beta=true`)
_METHODS = ["GET", "POST", "DELETE"]
_MAX_PAGE = 1000
Model = dict[str, Any]

router = api_router("anthropic", dependencies=_ANY, is_described=False)


@router.get("/api/hello")
async def hello() -> Response:
    """Says that somebody listens; Claude Code asks before anything else, without a key."""
    return _json({"message": "hello"})


@router.get("/v1/models")
async def models(
    request: Request,
    runtime: RuntimeDep,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 20,
    after_id: str | None = None,
    before_id: str | None = None,
    lifecycle: Annotated[list[str] | None, Query(alias="lifecycle[]")] = None,
) -> Response:
    """A page of the models that the key may use, the newest first."""
    found = await _models(request, runtime)
    if lifecycle:
        found = [model for model in found if model["lifecycle"] in lifecycle]
    page, has_more = page_of(found, limit=limit, after_id=after_id, before_id=before_id)
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return _json({"data": page, "has_more": has_more, "first_id": ends[0], "last_id": ends[1]})


@router.get("/v1/models/{model}")
async def model(model: str, request: Request, runtime: RuntimeDep) -> Response:
    """One model that the key may use."""
    for one in await _models(request, runtime):
        if one["id"] == model:
            return _json(one)
    raise NotFound("model: not found, or not allowed for this key")


@router.api_route("/v1/messages/batches", methods=_METHODS)
@router.api_route("/v1/messages/batches/{rest:path}", methods=_METHODS)
async def batches(request: Request, runtime: RuntimeDep) -> Response:
    """Refuses message batches: nothing bounds their cost yet."""
    await _caller(request, runtime)
    raise NotOffered("batches", "messages")


@router.api_route("/v1/files", methods=_METHODS)
@router.api_route("/v1/files/{rest:path}", methods=_METHODS)
async def files(request: Request, runtime: RuntimeDep) -> Response:
    """Refuses files: they live in the operator's workspace."""
    await _caller(request, runtime)
    raise NotOffered("files", "files")


@router.api_route("/v1/skills", methods=_METHODS)
@router.api_route("/v1/skills/{rest:path}", methods=_METHODS)
async def skills(request: Request, runtime: RuntimeDep) -> Response:
    """Refuses skills: they live in the operator's workspace."""
    await _caller(request, runtime)
    raise NotOffered("skills", "skills")


def page_of(
    found: Sequence[Model], *, limit: int, after_id: str | None, before_id: str | None
) -> tuple[Sequence[Model], bool]:
    """Returns a page, and whether more follow in its direction. Raises Invalid for an unknown id."""
    if after_id is not None and before_id is not None:
        raise Invalid("after_id, before_id: only one of them")
    if before_id is not None:
        before = found[: _place(found, "before_id", before_id)]
        return before[-limit:], len(before) > limit
    rest = found if after_id is None else found[_place(found, "after_id", after_id) + 1 :]
    return rest[:limit], len(rest) > limit


def _place(found: Sequence[Model], parameter: str, name: str) -> int:
    for place, one in enumerate(found):
        if one["id"] == name:
            return place
    raise Invalid(f"{parameter}: no such model")


async def _caller(request: Request, runtime: Runtime) -> Principal:
    """Returns who may chat: the caller, or the user that it names."""
    principal = await acting_caller_of(request, runtime, None)
    principal.require_any(Scope.CHAT, Scope.CHAT_AS_USER)
    return principal


async def _models(request: Request, runtime: Runtime) -> list[Model]:
    """Returns the models that the caller may use, the newest first."""
    principal = await _caller(request, runtime)
    names = await runtime.allowed_models.of(principal)
    await runtime.model_details.load()
    known = [runtime.model_details.of(name) for name in names]
    return sorted(known, key=lambda one: str(one["created_at"]), reverse=True)


def _json(answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
