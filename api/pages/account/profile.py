"""The billing profile, which a subscription needs. Billing checks it; each error is shown at its field."""

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import (
    NOTHING_TYPED,
    REFUSALS,
    FormDep,
    Said,
    Typed,
    filled,
    leave_refused,
    parsed,
    refused,
    show,
    taken,
)
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.schemas.billing.profiles import ProfileBody, ProfileItem
from api.services.accounts.lookups import own_tenant
from api.services.billing import profiles
from billing.gst.gstin import STATES
from billing.gst.tax import INDIA

router = page_router("/account/profile")
_LINES = ("line1", "line2", "line3", "line4")
_PLAN = "plan"
_SAID = {"saved": "The billing profile is saved. Earlier bills stay as they are."}
_SENTENCES = {
    "legal_name": "The legal name has 1 to 100 printable characters.",
    "lines": "An address has 1 to 4 lines.",
    "city": "Enter the city.",
    "postal_code": "Enter the postal code; an Indian PIN code has six digits.",
    "country": "Enter the country as two letters, such as IN.",
    "email": "The e-mail address has the form name@example.com.",
    "state": "Choose a state from the list.",
    "gstin": "A GSTIN has 15 letters and digits.",
    "contact": "A phone number has 8 to 15 digits, with + for the country code.",
}
_FIELD_OF = {
    "the legal name": "legal_name",
    "a line of the address": "line1",
    "an address": "line1",
    "the city": "city",
    "the e-mail": "email",
    "the country": "country",
    "the phone": "contact",
    "an Indian PIN": "postal_code",
    "the postal code": "postal_code",
    "the GSTIN": "gstin",
    "a customer in India needs its state": "state",
    "customers outside India": "country",
    "a customer abroad": "country",
}
"""The field of an error of billing, by the beginning of its text."""


@router.get("")
async def profile_page(
    request: Request,
    visitor: AccountAdmin,
    said: Said = "",
    next: Said = "",  # noqa: A002 - its name in the URL
) -> Response:
    """The profile in a form."""
    context = visitor.account_context
    profile = await profiles.find_profile(context, own_tenant(context))
    typed, status, _ = taken(request)
    typed = _filled(profile) if typed is NOTHING_TYPED else typed
    known = next if next == _PLAN else ""
    states = sorted(STATES.items(), key=lambda item: item[1])
    return show(
        request,
        "profile",
        visitor,
        status=status,
        said=_SAID.get(said, ""),
        typed=typed,
        states=states,
        lines=_LINES,
        next=known,
    )


@router.post("")
async def save_profile(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Replaces the profile; returns to the plans if the form was opened from there."""
    context = visitor.account_context
    try:
        body = parsed(ProfileBody, _values(form), _SENTENCES)
        await profiles.set_profile(context, own_tenant(context), body)
    except REFUSALS as error:
        typed, status = refused(form, error, _field_of(str(error)))
        page = "/account/profile?next=plan" if form.text("next") == _PLAN else "/account/profile"
        return leave_refused(request, page, typed, status)
    return see_other("/account/plan?said=profile" if form.text("next") == _PLAN else "/account/profile?said=saved")


def _values(form: Typed) -> dict[str, Any]:
    """The fields of the form. Outside India there is no state."""
    names = ("legal_name", "city", "postal_code", "email")
    country = form.text("country").upper()
    return {
        **{name: form.text(name) for name in names},
        "lines": [line for name in _LINES if (line := form.text(name))],
        "country": country,
        "state": (form.text("state") or None) if country == INDIA else None,
        "gstin": form.text("gstin").replace(" ", "").upper() or None,
        "contact": form.text("contact").replace(" ", "") or None,
    }


def _filled(profile: ProfileItem | None) -> Typed:
    if profile is None:
        return filled({"country": INDIA})
    kept = profile.model_dump(exclude={"lines"})
    return filled({**kept, **dict(zip(_LINES, profile.lines, strict=False))})


def _field_of(reason: str) -> str:
    return next((field for begin, field in _FIELD_OF.items() if reason.startswith(begin)), "")
