"""`naka plan`: plans and their versions."""

import re
from decimal import Decimal
from typing import Annotated, Literal

import typer

from api.cli.accounts.limits import read_limits
from api.cli.command import Call, Group
from api.cli.options import PlanCode, PlanVersion
from api.schemas.billing.plans import MeterPrice, NewPlan
from api.services.billing import plans
from billing.rating.overage import Meter, PastAllowance
from core.errors import Invalid
from core.features import Feature

app = Group()

_PAISE = 100
_RUPEES = re.compile(r"([0-9]{1,15}|[0-9]{1,3}(,[0-9]{2,3}){0,4},[0-9]{3})(\.[0-9]{1,6})?")

_FORM = "METER/WINDOW=N"
UserLimits = Annotated[list[str] | None, typer.Option("--user", metavar=_FORM, help="A limit of each user.")]
TenantLimits = Annotated[list[str] | None, typer.Option("--tenant", metavar=_FORM, help="A limit of the tenant.")]
UserConcurrency = Annotated[int | None, typer.Option(help="Concurrent requests of each user.")]
TenantConcurrency = Annotated[int | None, typer.Option(help="Concurrent requests of the tenant.")]
MeterTexts = Annotated[
    list[str] | None,
    typer.Option("--meter", metavar="METER=N@RUPEES", help="Included units, and rupees per million of overage."),
]
Features = Annotated[
    list[Feature] | None, typer.Option("--feature", help="A feature of the Messages API that it allows.")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="A model that it allows, or a prefix such as `claude-haiku-*`."),
]
WhenUnpaid = Annotated[
    Literal["block", "free"], typer.Option(help="`block` requests, or `free`: give what the tenant's own plan gives.")
]


@app.answering("publish")
def publish_one(  # noqa: PLR0913, PLR0917 - all that a plan says
    code: Annotated[str, typer.Argument(help="The plan's code: a-z, 0-9 and hyphens.")],
    name: Annotated[str, typer.Argument(help="The display name.")],
    user: UserLimits = None,
    tenant: TenantLimits = None,
    user_concurrency: UserConcurrency = None,
    tenant_concurrency: TenantConcurrency = None,
    base: Annotated[str, typer.Option(metavar="RUPEES", help="The price per month before tax, such as 2999.00.")] = "0",
    meter: MeterTexts = None,
    past_allowance: Annotated[
        PastAllowance, typer.Option(help="Block requests, or bill overage.")
    ] = PastAllowance.BLOCK,
    ceiling: Annotated[
        str | None, typer.Option(metavar="RUPEES", help="The limit of overage per period, before tax.")
    ] = None,
    when_unpaid: WhenUnpaid = "block",
    trial_days: Annotated[int, typer.Option(help="Days before the first charge.")] = 0,
    feature: Features = None,
    model: Models = None,
) -> Call:
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
        features=feature or [],
        models=model or None,
    )
    return lambda context: plans.publish_plan(context, new)


@app.answering("show")
def show_one(code: PlanCode, version: PlanVersion = None) -> Call:
    """Show a version of a plan."""
    return lambda context: plans.find_plan(context, code, version)


@app.answering("list", "code", "version", "name", "base_paise", "past_allowance", "user", "tenant")
def list_all() -> Call:
    """List every version of every plan."""
    return plans.list_plans


def _paise(text: str) -> int:
    """Exact paise of an amount in rupees: `2999.00`, `1,00,000`. Raises Invalid."""
    if not _RUPEES.fullmatch(text):
        raise Invalid(f"{text!r} is not an amount in rupees, such as 2999.00")
    amount = Decimal(text.replace(",", "")) * _PAISE
    if amount != int(amount):
        raise Invalid(f"{text!r} has a part of a paisa")
    return int(amount)


def _meter(text: str, *, priced: bool) -> MeterPrice:
    """A meter's terms: `output_tokens=2000000@1600.00`; a plan that bills needs the rate. Raises Invalid."""
    name, _, terms = text.partition("=")
    allowance, _, rate = terms.partition("@")
    if name not in set(Meter) or not allowance.isdecimal() or (priced and not rate):
        raise Invalid(f"{text!r} is not METER=INCLUDED@RUPEES, with a meter of {', '.join(Meter)}")
    return MeterPrice(meter=Meter(name), allowance=int(allowance), rate_paise=_paise(rate or "0"))
