"""Identity providers of the account: whose JWTs its users may sign requests with. A section of the page of users."""

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import REFUSALS, FormDep, Refused, Typed, leave_refused, parsed, refused
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.routes.parameters import IssuerId
from api.schemas.accounts.issuers import NewIssuer
from api.services.accounts import issuers

router = page_router("/account/issuers")
_PAGE = "/account/keys"
_FIELDS = ("issuer", "audience", "verification_keys", "user_claim")
_SENTENCES = {
    "issuer": "Copy the iss of a token: 1 to 200 characters.",
    "audience": "Copy the aud of a token: 1 to 200 characters.",
    "verification_keys": "Enter the https:// address of its JWKS, or its public key in PEM.",
    "user_claim": "Enter the name of the claim that names the user, as sub.",
    "tag_claims": "One claim a line, as metadata.team = team. A tag has a-z, 0-9, _, . and - only; at most 8.",
}


@router.post("")
async def register(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Registers an identity provider; a refused form is shown again."""
    try:
        values = {name: form.text(name) for name in _FIELDS} | {"tag_claims": _tag_claims(form)}
        body = parsed(NewIssuer, values, _SENTENCES)
        await issuers.register_issuer(visitor.account_context, visitor.principal.tenant_id, body)
    except REFUSALS as error:
        typed, status = refused(form, error, "verification_keys")
        if status == 409:  # noqa: PLR2004 - a conflict
            typed = Typed(typed.fields, {"audience": "This issuer is registered for this audience already."})
        return leave_refused(request, _PAGE, typed, status, form="issuer")
    return see_other(f"{_PAGE}?said=issuer#issuers")


@router.post("/{issuer_id}/remove")
async def remove(issuer_id: IssuerId, visitor: AccountAdmin) -> Response:
    """Removes an identity provider."""
    await issuers.remove_issuer(visitor.account_context, issuer_id)
    return see_other(f"{_PAGE}?said=removed#issuers")


def _tag_claims(form: Typed) -> dict[str, str]:
    """The lines `claim = tag`. Raises Refused."""
    lines = [line.strip() for line in form.text("tag_claims").splitlines() if line.strip()]
    pairs = [line.rpartition("=") for line in lines]
    if not all(claim.strip() and tag.strip() for claim, _, tag in pairs):
        raise Refused({"tag_claims": _SENTENCES["tag_claims"]})
    return {claim.strip(): tag.strip() for claim, _, tag in pairs}
