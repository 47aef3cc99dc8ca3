"""The mandate on the page of the plan: authorise one, check it, cancel it.

Authorising happens on Razorpay's page in another tab, as paying does.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import REFUSALS, FormDep, above, leave_refused, parsed
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.schemas.billing.mandates import NewMandate
from api.services.billing import mandates

router = page_router("/account/mandate")
_PLAN = "/account/plan"
_SENTENCES = {
    "method": "Choose UPI or card.",
    "contact": "A phone number has 8 to 15 digits, with + for the country's code.",
}


@router.post("")
async def authorise(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Asks for a mandate, to be authorised at Razorpay."""

    async def begin() -> object:
        given = {"method": form.text("method"), "contact": form.text("contact").replace(" ", "") or None}
        return await mandates.register_mandate(visitor.account_context, parsed(NewMandate, given, _SENTENCES))

    return await _do(request, begin, "mandate")


@router.post("/check")
async def check(request: Request, visitor: AccountAdmin) -> Response:
    """Asks Razorpay whether it is authorised."""
    return await _do(request, lambda: mandates.check_mandate(visitor.account_context), "mandate")


@router.post("/cancel")
async def cancel(request: Request, visitor: AccountAdmin) -> Response:
    """Cancels the mandate to authorise, or else the active one."""
    return await _do(request, lambda: mandates.end_mandate(visitor.account_context), "unmandated")


async def _do(request: Request, work: Callable[[], Awaitable[Any]], said: str) -> Response:
    """Does `work`; a refusal is shown above the page."""
    try:
        await work()
    except REFUSALS as error:
        typed, status = above(error)
        return leave_refused(request, _PLAN, typed, status)
    return see_other(f"{_PLAN}?said={said}#mandate")
