"""`naka correct` and `naka credit`: an operator's decisions on top of what was measured."""

import re
from typing import Annotated
from uuid import UUID

import typer

from api.cli.command import Answer, Call, answering
from api.cli.options import UserId
from api.schemas.usage.corrections import Deltas, NewCorrection, NewCredit
from api.services.context import ServiceContext
from api.services.usage import corrections
from core.errors import Invalid

_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
_COUNTS = tuple(Deltas.model_fields)
_NAMES = ", ".join(_COUNTS)

RequestId = Annotated[UUID, typer.Argument(metavar="REQUEST_ID", help="A request's id.")]
Reason = Annotated[str, typer.Option(help="Why; the tenant can read it.")]
Reference = Annotated[str | None, typer.Option(help="Unique in the tenant: the command may then be repeated.")]


@answering()
def correct(
    request_id: RequestId,
    change: Annotated[
        list[str], typer.Option(metavar="COUNT=N", help=f"A signed difference, as output_tokens=-120. COUNT: {_NAMES}.")
    ],
    reason: Reason,
    reference: Reference = None,
) -> Call:
    """Correct what a settled request counts for."""
    new = NewCorrection.model_validate({"deltas": _amounts(change), "reason": reason, "reference": reference})

    async def write(context: ServiceContext) -> Answer:
        return (await corrections.correct_request(context, request_id, new))[0]

    return write


@answering()
def credit(
    user_id: UserId,
    amount: Annotated[
        list[str],
        typer.Option(metavar="COUNT=N", help=f"What to take off, as output_tokens=500. COUNT: {_NAMES}."),
    ],
    reason: Reason,
    *,
    period: Annotated[str | None, typer.Option(help="A month, as 2026-11; default: the current one.")] = None,
    day: Annotated[str | None, typer.Option(help="A day of it, as 2026-11-22.")] = None,
    reference: Reference = None,
) -> Call:
    """Take something off a user's usage of a period."""
    new = NewCredit.model_validate(
        {"amounts": _amounts(amount), "period": period, "day": day, "reason": reason, "reference": reference}
    )

    async def write(context: ServiceContext) -> Answer:
        return (await corrections.credit_user(context, user_id, new))[0]

    return write


def _amounts(texts: list[str]) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in _COUNTS or name in amounts or not _NUMBER.fullmatch(number):
            raise Invalid(f"an amount is COUNT=N, as output_tokens=500, once for each COUNT of {_NAMES}")
        amounts[name] = int(number)
    return amounts
