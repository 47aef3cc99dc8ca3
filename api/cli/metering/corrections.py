"""`naka correct` and `naka credit`: what an operator decides on top of what was measured."""

import re
from typing import Annotated
from uuid import UUID

import typer

from api.cli.accounts.users import UserId
from api.cli.command import AsJson, CommandContext, run_command, show
from api.routes.admin.corrections import EntryItem, NewCorrection, NewCredit, enter_correction, enter_credit
from core.errors import Invalid
from metering.models import COUNT_COLUMNS
from metering.quota.windows import Calendar

_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
_NAMES = ", ".join(COUNT_COLUMNS)

RequestId = Annotated[UUID, typer.Argument(metavar="REQUEST_ID", help="A request's id.")]
Reason = Annotated[str, typer.Option(help="Why; the tenant can read it.")]
Reference = Annotated[str | None, typer.Option(help="Unique in the tenant: the command may then be repeated.")]


def correct(
    request_id: RequestId,
    change: Annotated[
        list[str], typer.Option(metavar="COUNT=N", help=f"A signed difference, as output_tokens=-120. COUNT: {_NAMES}.")
    ],
    reason: Reason,
    reference: Reference = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Correct what a settled request counts for."""
    new = NewCorrection.model_validate({"deltas": _amounts(change), "reason": reason, "reference": reference})

    async def work(context: CommandContext) -> EntryItem:
        return EntryItem.of((await enter_correction(context.session, context.actor, request_id, new)).entry)

    show(run_command(work), as_json=as_json)


def credit(
    user_id: UserId,
    amount: Annotated[
        list[str], typer.Option(metavar="COUNT=N", help=f"What to take off, as output_tokens=500. COUNT: {_NAMES}.")
    ],
    reason: Reason,
    period: Annotated[str | None, typer.Option(help="A month, as 2026-11; the current one when not given.")] = None,
    day: Annotated[str | None, typer.Option(help="A day of it, as 2026-11-22.")] = None,
    reference: Reference = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Take something off a user's usage of a period."""
    new = NewCredit.model_validate(
        {"amounts": _amounts(amount), "period": period, "day": day, "reason": reason, "reference": reference}
    )

    async def work(context: CommandContext) -> EntryItem:
        calendar = Calendar(context.settings.timezone)
        return EntryItem.of((await enter_credit(context.session, context.actor, user_id, new, calendar)).entry)

    show(run_command(work), as_json=as_json)


def _amounts(texts: list[str]) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in COUNT_COLUMNS or name in amounts or not _NUMBER.fullmatch(number):
            raise Invalid(f"an amount is COUNT=N, as output_tokens=500, once for each COUNT of {_NAMES}")
        amounts[name] = int(number)
    return amounts
