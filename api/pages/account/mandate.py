"""The mandate on the page of the plan: authorise one, check it, cancel it.

Authorising happens on Razorpay's page in another tab, as paying does.
"""

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import FormDep, parsed, perform
from api.pages.route import page_router
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

    return await perform(request, _PLAN, begin, "mandate", section="mandate")


@router.post("/check")
async def check(request: Request, visitor: AccountAdmin) -> Response:
    """Asks Razorpay whether it is authorised."""
    return await perform(
        request, _PLAN, lambda: mandates.check_mandate(visitor.account_context), "mandate", section="mandate"
    )


@router.post("/cancel")
async def cancel(request: Request, visitor: AccountAdmin) -> Response:
    """Cancels the mandate to authorise, or else the active one."""
    return await perform(
        request, _PLAN, lambda: mandates.end_mandate(visitor.account_context), "unmandated", section="mandate"
    )
