"""The billing profile: who stands on the bills. Needed before a plan can be subscribed to.

What is checked is what the API checks (`billing.catalogue.profiles`); the reason stands at the field that it is about.
"""

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.pages.account.frame import REFUSALS, FormDep, Said, Typed, filled, own, parsed, refused, show
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin, Visitor
from api.routes.admin.profiles import ProfileBody, ProfileItem
from api.routes.billing.profile import my_profile, put_profile
from billing.gst.gstin import STATES
from billing.gst.tax import INDIA

router = page_router("/account/profile")
_LINES = ("line1", "line2", "line3", "line4")
_PLAN = "plan"
_SAID = {"saved": "The billing profile is saved. It is on every bill from now on; earlier ones stay as they are."}
_SENTENCES = {
    "legal_name": "The legal name has 1 to 100 printable characters.",
    "lines": "An address has 1 to 4 lines.",
    "city": "The city is needed.",
    "postal_code": "The postal code is needed; an Indian PIN code has six digits.",
    "country": "The country is two capital letters, as IN.",
    "email": "The e-mail address has the form name@example.com.",
    "state": "Choose a state of the list.",
    "gstin": "A GSTIN has 15 letters and digits.",
    "contact": "A phone number has 8 to 15 digits, with + for the country's code.",
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
"""Where a reason of the operation belongs, by how it begins."""


@router.get("")
async def profile_page(
    request: Request,
    runtime: RuntimeDep,
    visitor: AccountAdmin,
    said: Said = "",
    next: Said = "",  # noqa: A002 - its name in the URL
) -> Response:
    """The profile as it is, to be changed."""
    profile = await my_profile(own(visitor), runtime, request)
    return _page(request, visitor, _filled(profile), said=_SAID.get(said, ""), next_page=next)


@router.post("")
async def save_profile(request: Request, runtime: RuntimeDep, visitor: AccountAdmin, form: FormDep) -> Response:
    """Replaces it; goes back to the plans where those were what was wanted."""
    try:
        body = parsed(ProfileBody, _values(form), _SENTENCES)
        await put_profile(body, own(visitor), runtime, request)
    except REFUSALS as error:
        typed, status = refused(form, error, _field_of(str(error)))
        return _page(request, visitor, typed, status=status, next_page=form.text("next"))
    return see_other("/account/plan?said=profile" if form.text("next") == _PLAN else "/account/profile?said=saved")


def _page(request: Request, visitor: Visitor, typed: Typed, *, next_page: str = "", **context: Any) -> Response:
    known = next_page if next_page == _PLAN else ""
    states = sorted(STATES.items(), key=lambda item: item[1])
    return show(request, "profile", visitor, typed=typed, states=states, lines=_LINES, next=known, **context)


def _values(form: Typed) -> dict[str, Any]:
    """The body of the JSON route. Abroad there is no Indian state."""
    names = ("legal_name", "city", "postal_code", "email")
    country = form.text("country").upper()
    return {
        **{name: form.text(name) for name in names},
        "lines": [line for name in _LINES if (line := form.text(name))],
        "country": country,
        "state": form.optional("state") if country == INDIA else None,
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
