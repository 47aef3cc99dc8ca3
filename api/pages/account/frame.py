"""The frame of the account's pages: tabs, forms, and their refusals.

A refused form is shown again after a redirect (`api.pages.once`), with its values and a message at each wrong field;
the server stores nothing. Text from a URL is never shown: `said` is a code for a fixed sentence.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from api.pages.account import wording
from api.pages.banner import way_of
from api.pages.once import leave, take
from api.pages.site import render, see_other, sentence
from api.pages.visitor import Visitor
from billing.standing.words import say
from core.errors import Conflict, Invalid, NakaError, Unavailable
from core.tenancy.derivation import ExceedsParentKey
from metering.pricing.price import UnknownModel

B = TypeVar("B", bound=BaseModel)

TABS = [
    ("/account", "Overview"),
    ("/account/plan", "Plan"),
    ("/account/bills", "Bills"),
    ("/account/wallet", "Wallet"),
    ("/account/keys", "Users and keys"),
    ("/account/tags", "Tags"),
    ("/account/budgets", "Budgets"),
    ("/account/members", "Members"),
    ("/account/alerts", "Alerts"),
    ("/account/profile", "Billing profile"),
]
WHOLE = ""
"""Name of the fault of a form as a whole."""
REFUSALS = (Invalid, Conflict, UnknownModel, ExceedsParentKey)
"""Errors that the user can correct in the form."""

Said = Annotated[str, Query(max_length=20)]


class Refused(Invalid):
    """A form with wrong fields, and a sentence for each."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(faults.values()))
        self.faults = dict(faults)


@dataclass(frozen=True, slots=True)
class Typed:
    """The values of a form. `faults`: a sentence by field."""

    fields: Mapping[str, Sequence[str]]
    faults: Mapping[str, str]

    def text(self, name: str) -> str:
        """A field without blanks around it; empty if missing."""
        found = self.fields.get(name, ())
        return found[0].strip() if found else ""

    def every(self, name: str) -> list[str]:
        """Every value of a field, as checkboxes have."""
        return [value for value in self.fields.get(name, ()) if value]

    def fault(self, name: str) -> str:
        """The fault of a field; empty without one."""
        return self.faults.get(name, "")


NOTHING_TYPED = Typed({}, {})


def filled(values: Mapping[str, str | Sequence[str] | None]) -> Typed:
    """A form filled with stored values."""
    listed = {name: [value] if isinstance(value, str) else list(value or ()) for name, value in values.items()}
    return Typed(listed, {})


async def _typed(request: Request) -> Typed:
    form: FormData = await request.form()
    return Typed({name: [each for each in form.getlist(name) if isinstance(each, str)] for name in form}, {})


FormDep = Annotated[Typed, Depends(_typed)]


def parsed(model: type[B], values: Mapping[str, Any], sentences: Mapping[str, str]) -> B:
    """Validates a service's input. Raises Refused with the sentence of each wrong field."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        wrong = {str(item["loc"][0]) if item["loc"] else WHOLE for item in error.errors()}
        raise Refused({name: sentences.get(name, "This value is not valid.") for name in wrong}) from error


def refused(typed: Typed, error: NakaError, field: str = WHOLE) -> tuple[Typed, int]:
    """The form to show again, and the answer's status."""
    faults = error.faults if isinstance(error, Refused) else {field: sentence(str(error))}
    return replace(typed, faults=faults), 409 if isinstance(error, Conflict) else 422


def above(error: NakaError) -> tuple[Typed, int]:
    """Like `refused`, for a form without fields: every fault is shown above the page."""
    typed, status = refused(NOTHING_TYPED, error)
    return replace(typed, faults={WHOLE: " ".join(typed.faults.values())}), status


def state_of(visitor: Visitor) -> wording.State:
    """The status of the visitor's account, as its pages show it."""
    if visitor.money is None:
        raise Unavailable
    said = say(visitor.money, visitor.context.zone)
    return wording.State(said.tag, said.tone, said.whole, way_of(visitor.money, said))


def taken(request: Request) -> tuple[Typed, int, dict[str, Any]]:
    """The values that a POST left for this page: its refused form, the answer's status, and everything else."""
    left = take(request)
    fields, faults, status = left.pop("fields", {}), left.pop("faults", {}), left.pop("status", 200)
    return (Typed(fields, faults) if faults else NOTHING_TYPED), status, left


def leave_refused(request: Request, path: str, typed: Typed, status: int, **more: Any) -> Response:
    """The redirect after a refused form: its page shows the form again."""
    fields = {name: list(values) for name, values in typed.fields.items()}
    return leave(request, path, fields=fields, faults=dict(typed.faults), status=status, **more)


async def perform(
    request: Request,
    page: str,
    work: Callable[[], Awaitable[object]],
    said: str = "",
    *,
    form: Typed | None = None,
    field: str = WHOLE,
    section: str = "",
) -> Response:
    """Does `work` and redirects to `page`, to a section of it if any; the notice is `said`, else the result of `work`.

    The page shows a refusal at the form's `field`; without a form, above everything.
    """
    try:
        result = await work()
    except REFUSALS as error:
        typed, status = above(error) if form is None else refused(form, error, field)
        return leave_refused(request, page, typed, status)
    return see_other(f"{page}?said={said or result}{section and f'#{section}'}")


def show(request: Request, name: str, visitor: Visitor, **context: Any) -> HTMLResponse:
    """Renders a page of the account."""
    given: dict[str, Any] = {"said": "", "typed": NOTHING_TYPED, "tabs": TABS, "wording": wording, **context}
    given["sees_cost"] = visitor.context.sees_cost
    return render(request, f"account/{name}.html", visitor, **given)
