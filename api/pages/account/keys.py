"""Users of the account and their keys: make a user, make a key (shown once), rotate it, end it.

Only of the visitor's own tenant, and only keys whose scopes a tenant's admin may hand out: the operator's own are not
made, shown anew or ended here. A key that ends takes the sessions with it that hang on it.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import func, select

from api.auth.access import RuntimeDep
from api.auth.credentials import drop_session
from api.pages.account import wording
from api.pages.account.frame import (
    NOTHING_TYPED,
    REFUSALS,
    FormDep,
    Refused,
    Said,
    Typed,
    above,
    own,
    parsed,
    refused,
    show,
)
from api.pages.account.people import OVERLAPS, find_own_key, person_page
from api.pages.route import page_router
from api.pages.site import render, see_other
from api.pages.visitor import AccountAdmin, Visitor
from api.routes.admin.keys import NewKey, Rotation, end_key, new_key, rotation
from api.routes.admin.users import NewUser, UserItem, new_user
from api.routes.parameters import Cursor, KeyId, UserId
from api.runtime import Runtime
from api.schemas.pages import page
from core.clock import now_ms, to_datetime
from core.tenancy.lists import list_users
from core.tenancy.models import ApiKey, User
from metering.quota.windows import day_start_ms

router = page_router("/account")
_SIZE = 50
_NAME_MAX = 200
_SENTENCES = {
    "external_id": "A name has 1 to 200 characters, without line breaks.",
    "name": "A name has 1 to 200 characters, without line breaks.",
    "scopes": "Choose at least one thing that the key may do.",
    "expires_at": "Choose a day in the future, or none.",
    "models": "Choose of the models that are shown.",
    "overlap_s": "Choose when the old key ends.",
}
_SAID = {
    "revoked": "The key has ended. Nothing can be done with it any more.",
    "limits": "The limits are set. They hold from the next request on.",
    "user": "The user is made. Now it needs a key.",
}


@router.get("/keys")
async def users_page(
    request: Request, runtime: RuntimeDep, visitor: AccountAdmin, user: str = "", cursor: Cursor = None
) -> Response:
    """The users, oldest first; or the one of that name."""
    return await _users(request, runtime, visitor, wanted=user[:_NAME_MAX].strip(), cursor=cursor)


@router.post("/keys")
async def make_user(request: Request, runtime: RuntimeDep, visitor: AccountAdmin, form: FormDep) -> Response:
    """Makes a user, and goes to it."""
    try:
        body = parsed(NewUser, {"external_id": form.text("external_id")}, _SENTENCES)
        made = await new_user(visitor.principal.tenant_id, body, own(visitor), runtime, request)
    except REFUSALS as error:
        typed, status = refused(form, error, "external_id")
        if status == 409:  # noqa: PLR2004 - a conflict
            typed = Typed(typed.fields, {"external_id": "There is a user of this name already."})
        return await _users(request, runtime, visitor, typed=typed, status=status)
    return see_other(f"/account/keys/{made.id}?said=user")


@router.get("/keys/{user_id}")
async def user_page(
    request: Request,
    user_id: UserId,
    runtime: RuntimeDep,
    visitor: AccountAdmin,
    said: Said = "",
    cursor: Cursor = None,
) -> Response:
    """A user with its keys and its limits."""
    return await person_page(request, runtime, visitor, user_id, said=_SAID.get(said, ""), cursor=cursor)


@router.post("/keys/{user_id}")
async def make_key(
    request: Request, user_id: UserId, runtime: RuntimeDep, visitor: AccountAdmin, form: FormDep
) -> Response:
    """Makes a key; this answer alone has it."""
    try:
        body = parsed(NewKey, _new_key(form, runtime), _SENTENCES)
        made = await new_key(user_id, body, own(visitor), runtime, request)
    except REFUSALS as error:
        typed, status = refused(form, error, "expires_at" if "expires_at" in str(error) else "")
        return await person_page(request, runtime, visitor, user_id, key_form=_worded(typed), status=status)
    return show(request, "key_made", visitor, status=201, made=made, ends_ms=None)


@router.post("/key/{key_id}/rotate")
async def rotate_key(
    request: Request, key_id: KeyId, runtime: RuntimeDep, visitor: AccountAdmin, form: FormDep
) -> Response:
    """Makes a successor, shown in this answer alone; the old key ends after the overlap."""
    key = await find_own_key(runtime, visitor, key_id)
    try:
        chosen = form.text("overlap")
        body = parsed(Rotation, {"overlap_s": int(chosen) if chosen in OVERLAPS else -1}, _SENTENCES)
        made = await rotation(key_id, body, own(visitor), runtime, request)
    except REFUSALS as error:
        typed, status = above(error)
        return await person_page(request, runtime, visitor, key.user_id, typed=typed, status=status)
    ends_now = body.overlap_s == 0
    answer = show(
        request,
        "key_made",
        visitor,
        status=201,
        made=made,
        ends_ms=now_ms() + body.overlap_s * 1000,
        old=key.prefix,
        signed_out=ends_now and key_id == visitor.principal.key_id,
    )
    if ends_now and key_id == visitor.principal.key_id:
        drop_session(answer)
    return answer


@router.post("/key/{key_id}/revoke")
async def revoke_key(
    request: Request, key_id: KeyId, runtime: RuntimeDep, visitor: AccountAdmin, form: FormDep
) -> Response:
    """Ends a key, and with `descendants` those made with it. With the session's own key, the session is over."""
    key = await find_own_key(runtime, visitor, key_id)
    descendants = bool(form.text("descendants"))
    await end_key(key_id, own(visitor), runtime, request, descendants=descendants)
    if not await _has_ended(runtime, visitor):
        return see_other(f"/account/keys/{key.user_id}?said=revoked")
    answer = render(request, "account/signed_out.html", prefix=visitor.key_prefix)
    drop_session(answer)
    return answer


async def _has_ended(runtime: Runtime, visitor: Visitor) -> bool:
    """Whether the visitor's own key ended just now: by itself, or with the one that it was made with."""
    query = select(ApiKey.revoked_at).where(
        ApiKey.tenant_id == visitor.principal.tenant_id, ApiKey.id == visitor.principal.key_id
    )
    async with runtime.database.session() as session:
        return await session.scalar(query) is not None


async def _users(
    request: Request,
    runtime: Runtime,
    visitor: Visitor,
    *,
    wanted: str = "",
    cursor: UUID | None = None,
    typed: Typed = NOTHING_TYPED,
    status: int = 200,
) -> Response:
    tenant_id = visitor.principal.tenant_id
    async with runtime.database.session(tenant_id=tenant_id) as session:
        if wanted:
            query = select(User).where(User.tenant_id == tenant_id, User.external_id == wanted)
            rows = (await session.scalars(query)).all()
        else:
            rows = await list_users(session, tenant_id, after=cursor, limit=_SIZE + 1)
        good = (ApiKey.revoked_at.is_(None)) & ((ApiKey.expires_at.is_(None)) | (ApiKey.expires_at > _now()))
        counted = select(ApiKey.user_id, func.count()).where(
            ApiKey.tenant_id == tenant_id, ApiKey.user_id.in_([row.id for row in rows]), good
        )
        counts = await session.execute(counted.group_by(ApiKey.user_id))
        keys = {user_id: int(count) for user_id, count in counts}
    found = page(rows, _SIZE, UserItem.of)
    return show(request, "keys", visitor, status=status, typed=typed, found=found, keys=keys, wanted=wanted)


def _now() -> datetime:
    return to_datetime(now_ms())


def _new_key(form: Typed, runtime: Runtime) -> dict[str, Any]:
    """The body of the JSON route. Raises Refused for a scope that is not handed out here, and for no day."""
    scopes = form.every("scopes")
    if not wording.SCOPES.keys() >= set(scopes):
        raise Refused({"scopes": "A key may have only what is listed here."})
    return {
        "name": form.text("name"),
        "scopes": scopes,
        "expires_at": _end_of(form.text("expires_at"), runtime),
        "models": form.every("models") or None,
    }


def _end_of(day: str, runtime: Runtime) -> datetime | None:
    """The end of a day of the operator: a key that ends on the 3rd is good on the 3rd."""
    if not day:
        return None
    try:
        following = date.fromisoformat(day) + timedelta(days=1)
        return to_datetime(day_start_ms(following, runtime.billing.zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused({"expires_at": _SENTENCES["expires_at"]}) from None


def _worded(typed: Typed) -> Typed:
    """What the operation says of an expiry is said in a form's words."""
    faults: Mapping[str, str] = typed.faults
    if "expires_at" not in faults:
        return typed
    return Typed(typed.fields, {**faults, "expires_at": _SENTENCES["expires_at"]})
