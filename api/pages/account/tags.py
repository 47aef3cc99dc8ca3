"""Tags: the keys whose usage is added up by value, with links to their reports; and budgets, the limits of tags."""

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import (
    NOTHING_TYPED,
    REFUSALS,
    FormDep,
    Said,
    Typed,
    leave_refused,
    parsed,
    perform,
    refused,
    show,
    taken,
)
from api.pages.account.limits import SENTENCES, limit_values
from api.pages.account.people import FORM_METERS
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin, Visitor
from api.routes.parameters import TagCursor
from api.schemas.accounts.tag_limits import NewTagLimits
from api.schemas.usage.tags import TagKeyBody
from api.services.accounts import tag_limits
from api.services.accounts.lookups import own_tenant
from api.services.usage import tags
from metering.quota.limits import Meter
from metering.tags.declared import MAX_KEYS, MAX_VALUES, USUAL_VALUES
from metering.tags.tags import OTHER

router = page_router("/account")
_SAID = {
    "set": "Requests are added up by this tag from now on.",
    "removed": "New requests are no longer added up by this tag. Its past usage stays in the reports.",
}
_SENTENCES = {"max_values": f"Enter a whole number from 1 to {MAX_VALUES:,}."}
_BUDGETS = "/account/budgets"
_SIZE = 50
_BUDGET_SAID = {"set": "Budget saved. It applies from the next request on.", "removed": "The budget is removed."}
_BUDGET_SENTENCES = {
    **SENTENCES,
    "key": "Choose one of the declared tag keys.",
    "value": "A value has 1 to 200 characters, without line breaks.",
    "limits": f"Enter at least one limit. {SENTENCES['limits']}",
}


@router.get("/tags")
async def tags_page(request: Request, visitor: AccountAdmin, said: Said = "") -> Response:
    """The declared keys, and a form for a new one."""
    context = visitor.account_context
    typed, status, _ = taken(request)
    return show(
        request,
        "tags",
        visitor,
        status=status,
        said=_SAID.get(said, ""),
        typed=typed,
        keys=await tags.list_tag_keys(context, own_tenant(context)),
        other=OTHER,
        usual=USUAL_VALUES,
        most_keys=MAX_KEYS,
    )


@router.post("/tags")
async def declare_tag(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Declares a key, or changes the bound of its values."""
    context = visitor.account_context
    try:
        body = parsed(TagKeyBody, {"max_values": form.text("max_values") or USUAL_VALUES}, _SENTENCES)
        await tags.declare_tag_key(context, own_tenant(context), form.text("key"), body)
    except REFUSALS as error:
        typed, status = refused(form, error, "key")
        return leave_refused(request, "/account/tags", typed, status)
    return see_other("/account/tags?said=set")


@router.post("/tags/remove")
async def remove_tag(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Ends a key. Raises NotFound."""
    context = visitor.account_context
    work = tags.remove_tag_key
    return await perform(
        request, "/account/tags", lambda: work(context, own_tenant(context), form.text("key")), "removed"
    )


@router.get("/budgets")
async def budgets_page(request: Request, visitor: AccountAdmin, said: Said = "", cursor: TagCursor = None) -> Response:
    """The tags with limits, and the form."""
    typed, status, _ = taken(request)
    context, tenant_id = visitor.account_context, visitor.principal.tenant_id
    found = await tag_limits.list_tag_limits(context, tenant_id, after=cursor, size=_SIZE)
    return show(
        request,
        "budgets",
        visitor,
        status=status,
        said=_BUDGET_SAID.get(said, ""),
        typed=_whole(typed),
        form=typed,
        found=found,
        keys=await tag_limits.declared_keys(context, tenant_id),
        meters=_meters(visitor),
    )


@router.post("/budgets")
async def set_budget(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Replaces the limits of a tag."""
    try:
        values: dict[str, Any] = {"key": form.text("key"), "value": form.text("value"), "limits": limit_values(form)}
        body = parsed(NewTagLimits, values, _BUDGET_SENTENCES)
        await tag_limits.set_tag_limits(visitor.account_context, visitor.principal.tenant_id, body)
    except REFUSALS as error:
        typed, status = refused(form, error)
        return leave_refused(request, _BUDGETS, typed, status)
    return see_other(f"{_BUDGETS}?said=set")


@router.post("/budgets/remove")
async def remove_budget(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Removes the limits of a tag. Raises NotFound."""
    key, value = form.text("key"), form.text("value")
    context, tenant_id = visitor.account_context, visitor.principal.tenant_id
    return await perform(
        request, _BUDGETS, lambda: tag_limits.remove_tag_limits(context, tenant_id, key=key, value=value), "removed"
    )


def _meters(visitor: Visitor) -> list[str]:
    return [meter for meter in FORM_METERS if meter != Meter.SPEND or visitor.context.sees_cost]


def _whole(typed: Typed) -> Typed:
    """What is shown above the page: nothing of the form, which shows its own faults."""
    return NOTHING_TYPED if typed.fields else typed
