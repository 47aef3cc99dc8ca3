"""`naka plan`: plans and their versions."""

import re
from decimal import Decimal
from typing import Annotated, Literal

import typer

from api.cli.accounts.limits import read_limits
from api.cli.command import AsJson, CommandContext, run_command, show, show_all
from api.routes.admin.plans import MeterPrice, NewPlan, PlanItem, publish
from billing.catalogue.plans import find_plan, list_plans
from billing.rating.overage import Meter, PastAllowance
from core.errors import Invalid

app = typer.Typer(no_args_is_help=True, help="Plans: what they cost, include and allow.")

_PAISE = 100
_RUPEES = re.compile(r"([0-9]{1,15}|[0-9]{1,3}(,[0-9]{2,3}){0,4},[0-9]{3})(\.[0-9]{1,6})?")

_FORM = "METER/WINDOW=N"
UserLimits = Annotated[list[str] | None, typer.Option("--user", metavar=_FORM, help="A limit of each user.")]
TenantLimits = Annotated[list[str] | None, typer.Option("--tenant", metavar=_FORM, help="A limit of the tenant.")]
UserConcurrency = Annotated[int | None, typer.Option(help="Requests at a time of each user.")]
TenantConcurrency = Annotated[int | None, typer.Option(help="Requests at a time of the tenant.")]
MeterTexts = Annotated[
    list[str] | None,
    typer.Option("--meter", metavar="METER=N@RUPEES", help="Included units, and rupees per million past them."),
]
WhenUnpaid = Annotated[Literal["block", "free"], typer.Option(help="`block`, or `free`: the tenant's own plan holds.")]


@app.command("publish")
def publish_one(  # noqa: PLR0913, PLR0917 - all that a plan says
    code: Annotated[str, typer.Argument(help="The plan's code: a-z, 0-9 and hyphens.")],
    name: Annotated[str, typer.Argument(help="The name that people read.")],
    user: UserLimits = None,
    tenant: TenantLimits = None,
    user_concurrency: UserConcurrency = None,
    tenant_concurrency: TenantConcurrency = None,
    base: Annotated[str, typer.Option(metavar="RUPEES", help="A month's price before tax, as 2999.00.")] = "0",
    meter: MeterTexts = None,
    past_allowance: Annotated[PastAllowance, typer.Option(help="What happens past it.")] = PastAllowance.BLOCK,
    ceiling: Annotated[str | None, typer.Option(metavar="RUPEES", help="The most that usage may cost.")] = None,
    when_unpaid: WhenUnpaid = "block",
    trial_days: Annotated[int, typer.Option(help="Days before the first charge.")] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Publish a plan, or its next version. Tenants stay on the version they are on."""
    new = NewPlan(
        base_paise=_paise(base),
        meters=[_meter(text, priced=past_allowance is PastAllowance.BILL) for text in meter or ()],
        past_allowance=past_allowance,
        ceiling_paise=None if ceiling is None else _paise(ceiling),
        when_unpaid=when_unpaid,
        trial_days=trial_days,
        code=code,
        name=name,
        user=read_limits(user, user_concurrency),
        tenant=read_limits(tenant, tenant_concurrency),
    )

    async def work(context: CommandContext) -> PlanItem:
        return PlanItem.of(await publish(context.session, context.actor, new))

    show(run_command(work), as_json=as_json)


@app.command("show")
def show_one(
    code: Annotated[str, typer.Argument(help="The plan's code.")],
    version: Annotated[int | None, typer.Option(help="Its version; the newest when not given.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show a version of a plan."""

    async def work(context: CommandContext) -> PlanItem:
        return PlanItem.of(await find_plan(context.session, code, version))

    show(run_command(work), as_json=as_json)


@app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List every version of every plan."""

    async def work(context: CommandContext) -> list[PlanItem]:
        return [PlanItem.of(plan) for plan in await list_plans(context.session)]

    show_all(
        run_command(work),
        ["code", "version", "name", "base_paise", "past_allowance", "user", "tenant"],
        as_json=as_json,
    )


def _paise(text: str) -> int:
    """Rupees as people write them, exactly: `2999.00`, `1,00,000`. Raises Invalid."""
    if not _RUPEES.fullmatch(text):
        raise Invalid(f"{text!r} is not an amount in rupees, as 2999.00")
    amount = Decimal(text.replace(",", "")) * _PAISE
    if amount != int(amount):
        raise Invalid(f"{text!r} has a part of a paisa")
    return int(amount)


def _meter(text: str, *, priced: bool) -> MeterPrice:
    """`output_tokens=2000000@1600.00`; a plan that bills wants the rate. Raises Invalid."""
    name, _, terms = text.partition("=")
    allowance, _, rate = terms.partition("@")
    if name not in set(Meter) or not allowance.isdecimal() or (priced and not rate):
        raise Invalid(f"{text!r} is not METER=INCLUDED@RUPEES, with a meter of {', '.join(Meter)}")
    return MeterPrice(meter=Meter(name), allowance=int(allowance), rate_paise=_paise(rate or "0"))
