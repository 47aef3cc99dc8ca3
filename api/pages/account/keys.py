"""Users of the account and their keys: create and disable a user; create a key (shown once), rotate it, revoke it.

Only keys with scopes that a tenant's admin may grant. A key that ends ends its sessions.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.auth.credentials import drop_session
from api.pages.account import wording
from api.pages.account.frame import (
    NOTHING_TYPED,
    REFUSALS,
    TABS,
    FormDep,
    Refused,
    Said,
    Typed,
    above,
    leave_refused,
    parsed,
    refused,
    show,
    taken,
)
from api.pages.account.people import KEY_FORM, OVERLAPS, person_page
from api.pages.once import leave, take
from api.pages.route import page_router
from api.pages.site import render, see_other
from api.pages.visitor import AccountAdmin, Visitor, visitor_or_none
from api.routes.parameters import Cursor, KeyId, UserId
from api.schemas.accounts.keys import NewKey, Rotation
from api.schemas.accounts.users import NewUser
from api.services.accounts import issuers, keys, users
from core.clock import now_ms, to_datetime
from metering.quota.windows import day_start_ms

router = page_router("/account")
_SIZE = 50
_NAME_MAX = 200
_MADE = "/account/key/made"
_SENTENCES = {
    "external_id": "A name has 1 to 200 characters, without line breaks.",
    "name": "A name has 1 to 200 characters, without line breaks.",
    "scopes": "Choose at least one permission.",
    "expires_at": "Choose a day in the future, or none.",
    "models": "Choose from the models shown.",
    "overlap_s": "Choose when the old key ends.",
}
_SAID = {
    "revoked": "The key is revoked. Requests with it are refused.",
    "limits": "Limits saved. They apply from the next request on.",
    "user": "User created. Create a key for it next.",
    "issuer": "Identity provider added. Its tokens are accepted from now on.",
    "removed": "Identity provider removed. Its tokens are refused from now on.",
    "disabled": "The user is disabled. Its requests are refused.",
    "enabled": "The user is enabled.",
}


@router.get("/keys")
async def users_page(
    request: Request, visitor: AccountAdmin, user: str = "", said: Said = "", cursor: Cursor = None
) -> Response:
    """Users, oldest first, or the one of this name; and the identity providers."""
    typed, status, left = taken(request)
    wanted, tenant_id = user[:_NAME_MAX].strip(), visitor.principal.tenant_id
    found = await users.list_users_with_keys(visitor.account_context, tenant_id, name=wanted, after=cursor, size=_SIZE)
    is_issuer = left.get("form") == "issuer"
    return show(
        request,
        "keys",
        visitor,
        status=status,
        said=_SAID.get(said, ""),
        typed=NOTHING_TYPED if is_issuer else typed,
        found=found,
        wanted=wanted,
        issuers=await issuers.list_issuers(visitor.account_context, tenant_id),
        typed_issuer=typed if is_issuer else NOTHING_TYPED,
    )


@router.post("/keys")
async def make_user(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Creates a user, and redirects to its page."""
    try:
        body = parsed(NewUser, {"external_id": form.text("external_id")}, _SENTENCES)
        made = await users.create_user(visitor.account_context, visitor.principal.tenant_id, body)
    except REFUSALS as error:
        typed, status = refused(form, error, "external_id")
        if status == 409:  # noqa: PLR2004 - a conflict
            typed = Typed(typed.fields, {"external_id": "A user with this name exists."})
        return leave_refused(request, "/account/keys", typed, status)
    return see_other(f"/account/keys/{made.id}?said=user")


@router.get("/keys/{user_id}")
async def user_page(
    request: Request,
    user_id: UserId,
    visitor: AccountAdmin,
    said: Said = "",
    cursor: Cursor = None,
) -> Response:
    """A user with its keys and its limits."""
    typed, status, left = taken(request)
    return await person_page(
        request,
        visitor,
        user_id,
        cursor=cursor,
        typed=typed,
        form=left.get("form"),
        said=_SAID.get(said, ""),
        status=status,
    )


@router.post("/keys/{user_id}")
async def make_key(request: Request, user_id: UserId, visitor: AccountAdmin, form: FormDep) -> Response:
    """Creates a key. Only the page after this answer shows it."""
    try:
        body = parsed(NewKey, _new_key(form, visitor), _SENTENCES)
        made = await keys.create_key(visitor.account_context, user_id, body)
    except REFUSALS as error:
        is_past = "expires_at" in str(error)
        typed, status = refused(form, Refused({"expires_at": _SENTENCES["expires_at"]}) if is_past else error)
        return leave_refused(request, f"/account/keys/{user_id}", typed, status, form=KEY_FORM)
    return leave(request, _MADE, name=made.name, key=made.key, user_id=str(made.user_id))


@router.post("/keys/{user_id}/state")
async def set_state(request: Request, user_id: UserId, visitor: AccountAdmin, form: FormDep) -> Response:
    """Disables the user, or enables it again. Raises NotFound for another tenant's user."""
    disabled = form.text("state") == "disabled"
    try:
        await users.set_disabled(visitor.account_context, user_id, disabled=disabled)
    except REFUSALS as error:
        typed, status = above(error)
        return leave_refused(request, f"/account/keys/{user_id}", typed, status)
    return see_other(f"/account/keys/{user_id}?said={'disabled' if disabled else 'enabled'}")


@router.get("/key/made")
async def made_key(request: Request) -> Response:
    """The key that was just created, once. It is shown without a session too, which a rotation may have ended."""
    left = take(request)
    if "key" not in left:
        return see_other("/account/keys")
    visitor = await visitor_or_none(request)
    made = {"ends_ms": None, "old": "", "signed_out": visitor is None, **left}
    given: dict[str, Any] = {"made": made, "tabs": TABS if visitor else [], "said": "", "typed": NOTHING_TYPED}
    return render(request, "account/key_made.html", visitor, status=201, **given)


@router.post("/key/{key_id}/rotate")
async def rotate_key(request: Request, key_id: KeyId, visitor: AccountAdmin, form: FormDep) -> Response:
    """Creates a successor, which only the page after this answer shows; the old key ends after the overlap."""
    key = await keys.find_key(visitor.account_context, key_id)
    try:
        chosen = form.text("overlap")
        body = parsed(Rotation, {"overlap_s": int(chosen) if chosen in OVERLAPS else -1}, _SENTENCES)
        made = await keys.rotate_key(visitor.account_context, key_id, body)
    except REFUSALS as error:
        typed, status = above(error)
        return leave_refused(request, f"/account/keys/{key.user_id}", typed, status)
    ends_now = body.overlap_s == 0
    left = {"name": made.name, "key": made.key, "user_id": str(made.user_id), "old": key.prefix}
    answer = leave(request, _MADE, **left, ends_ms=now_ms() + body.overlap_s * 1000)
    if ends_now and key_id == visitor.principal.key_id:
        drop_session(answer)
    return answer


@router.post("/key/{key_id}/revoke")
async def revoke_key(request: Request, key_id: KeyId, visitor: AccountAdmin, form: FormDep) -> Response:
    """Revokes a key, and with `descendants` those derived from it. The session of a revoked key ends."""
    key = await keys.find_key(visitor.account_context, key_id)
    ended = await keys.revoke_key(visitor.account_context, key_id, descendants=bool(form.text("descendants")))
    if visitor.principal.key_id not in {each.id for each in ended}:
        return see_other(f"/account/keys/{key.user_id}?said=revoked")
    answer = leave(request, "/sign-in", said=f"The key {visitor.key_prefix}… is revoked, and your session has ended.")
    drop_session(answer)
    return answer


def _new_key(form: Typed, visitor: Visitor) -> dict[str, Any]:
    """The fields of `NewKey`. Raises Refused for a scope that is not granted here, and for a wrong day."""
    scopes = form.every("scopes")
    if not wording.SCOPES.keys() >= set(scopes):
        raise Refused({"scopes": "Choose from the permissions listed here."})
    return {
        "name": form.text("name"),
        "scopes": scopes,
        "expires_at": _end_of(form.text("expires_at"), visitor),
        "models": form.every("models") or None,
    }


def _end_of(day: str, visitor: Visitor) -> datetime | None:
    """The end of a day in the operator's time zone: a key with the 3rd as its last day is valid on the 3rd."""
    if not day:
        return None
    try:
        following = date.fromisoformat(day) + timedelta(days=1)
        return to_datetime(day_start_ms(following, visitor.context.zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused({"expires_at": _SENTENCES["expires_at"]}) from None
