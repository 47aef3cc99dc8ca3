"""What the account's pages have in common: whose they are, their tabs, what was done, and what a form was refused for.

A form that is refused is shown again, with what was typed and the reason in words at its field; nothing is stored then.
Text from a URL never gets onto a page: `said` is a code, and its sentence is fixed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from api.pages.site import render
from api.pages.visitor import Visitor
from core.errors import Conflict, Invalid, NakaError
from core.tenancy.derivation import BeyondMaker
from core.tenancy.principal import Principal, Scope
from metering.pricing.price import UnknownModel

B = TypeVar("B", bound=BaseModel)

TABS = [
    ("/account", "Overview"),
    ("/account/plan", "Plan"),
    ("/account/bills", "Bills"),
    ("/account/keys", "Users and keys"),
    ("/account/alerts", "Alerts"),
    ("/account/profile", "Billing profile"),
]
WHOLE = ""
"""The fault of a form that is no single field's."""
REFUSALS = (Invalid, Conflict, UnknownModel, BeyondMaker)
"""What whoever filled a form in can mend."""

Said = Annotated[str, Query(max_length=20)]


class Refused(Invalid):
    """A form whose fields are wrong: a sentence for each."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(faults.values()))
        self.faults = dict(faults)


@dataclass(frozen=True, slots=True)
class Typed:
    """A form as it was typed. `faults`: a sentence by the field that it is about."""

    fields: Mapping[str, Sequence[str]]
    faults: Mapping[str, str]

    def text(self, name: str) -> str:
        """The field, without blanks around it; empty when there is none."""
        found = self.fields.get(name, ())
        return found[0].strip() if found else ""

    def optional(self, name: str) -> str | None:
        """The same; None when it is empty."""
        return self.text(name) or None

    def every(self, name: str) -> list[str]:
        """All of that name, as checkboxes are."""
        return [value for value in self.fields.get(name, ()) if value]

    def fault(self, name: str) -> str:
        """What is wrong with the field."""
        return self.faults.get(name, "")


NOTHING_TYPED = Typed({}, {})


def filled(values: Mapping[str, str | Sequence[str] | None]) -> Typed:
    """A form that shows what is known already."""
    listed = {name: [value] if isinstance(value, str) else list(value or ()) for name, value in values.items()}
    return Typed(listed, {})


async def _typed(request: Request) -> Typed:
    form: FormData = await request.form()
    return Typed({name: [each for each in form.getlist(name) if isinstance(each, str)] for name in form}, {})


FormDep = Annotated[Typed, Depends(_typed)]


def parsed(model: type[B], values: Mapping[str, Any], sentences: Mapping[str, str]) -> B:
    """The body that the JSON route takes, out of a form. Raises Refused with the sentence of each wrong field."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        wrong = {str(item["loc"][0]) if item["loc"] else WHOLE for item in error.errors()}
        raise Refused({name: sentences.get(name, "This cannot be taken.") for name in wrong}) from error


def refused(typed: Typed, error: NakaError, field: str = WHOLE) -> tuple[Typed, int]:
    """The form to be shown again, and the status of the answer."""
    faults = error.faults if isinstance(error, Refused) else {field: sentence(str(error))}
    return replace(typed, faults=faults), 409 if isinstance(error, Conflict) else 422


def above(error: NakaError) -> tuple[Typed, int]:
    """The same for a form of a button alone: what is wrong is said above the page."""
    typed, status = refused(NOTHING_TYPED, error)
    return replace(typed, faults={WHOLE: " ".join(typed.faults.values())}), status


def sentence(text: str) -> str:
    """An error's text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def own(visitor: Visitor) -> Principal:
    """The visitor without the operator's scope: on these pages an operator, too, only sees to its own tenant."""
    scopes = (visitor.principal.scopes | {Scope.TENANT_ADMIN}) - {Scope.PLATFORM_ADMIN}
    return replace(visitor.principal, scopes=scopes)


def show(request: Request, name: str, visitor: Visitor, **context: Any) -> HTMLResponse:
    """A page of the account."""
    given: dict[str, Any] = {"said": "", "typed": NOTHING_TYPED, **context}
    return render(request, f"account/{name}.html", visitor, tabs=TABS, **given)
