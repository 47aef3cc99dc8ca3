"""`naka plan`: plans and their versions."""

from typing import Annotated, Literal

import typer

from api.cli.accounts.limits import read_limits
from api.cli.command import Call, Group
from api.cli.options import PlanCode, PlanVersion
from api.schemas.billing.plans import MeterPrice, NewPlan, PlanItem
from api.services.billing import plans
from api.services.context import ServiceContext
from billing.gst.rupees import in_paise
from billing.rating.overage import Meter, PastAllowance
from core.errors import Invalid
from core.features import Feature

app = Group()


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
Version = Annotated[int, typer.Argument(min=1, help="Its version.")]
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
    threshold: Annotated[
        str | None,
        typer.Option(metavar="RUPEES", help="Bill overage within the period each time it reaches this, before tax."),
    ] = None,
    trial_days: Annotated[int, typer.Option(help="Days before the first charge.")] = 0,
    feature: Features = None,
    model: Models = None,
    *,
    draft: Annotated[bool, typer.Option("--draft", help="Do not offer it yet.")] = False,
) -> Call:
    """Publish a plan, or its next version, and offer it. Tenants stay on the version they are on."""
    new = NewPlan(
        base_paise=in_paise(base),
        meters=[_meter(text, priced=past_allowance is not PastAllowance.BLOCK) for text in meter or ()],
        past_allowance=past_allowance,
        ceiling_paise=None if ceiling is None else in_paise(ceiling),
        threshold_paise=None if threshold is None else in_paise(threshold),
        when_unpaid=when_unpaid,
        trial_days=trial_days,
        code=code,
        name=name,
        user=read_limits(user, user_concurrency),
        tenant=read_limits(tenant, tenant_concurrency),
        features=feature or [],
        models=model or None,
        draft=draft,
    )

    async def publish(context: ServiceContext) -> PlanItem:
        plan = await plans.publish_plan(context, new)
        for warning in plan.warnings:
            typer.echo(f"Warning: {warning}", err=True)
        return plan

    return publish


@app.answering("offer")
def offer_one(code: PlanCode, version: Version) -> Call:
    """Offer a draft or a withdrawn version, instead of the version offered before."""
    return lambda context: plans.offer_plan(context, code, version)


@app.answering("withdraw")
def withdraw_one(code: PlanCode, version: Version) -> Call:
    """Withdraw a version. Tenants that have it keep it and may renew it."""
    return lambda context: plans.withdraw_plan(context, code, version)


@app.answering("show")
def show_one(code: PlanCode, version: PlanVersion = None) -> Call:
    """Show a version of a plan: by default the one on offer, or else the newest."""
    return lambda context: plans.find_plan(context, code, version)


@app.answering("list", "code", "version", "state", "name", "base_paise", "past_allowance", "user", "tenant")
def list_all() -> Call:
    """List every version of every plan."""
    return plans.list_plans


def _meter(text: str, *, priced: bool) -> MeterPrice:
    """A meter's terms: `output_tokens=2000000@1600.00`; only a plan that blocks needs no rate. Raises Invalid."""
    name, _, terms = text.partition("=")
    allowance, _, rate = terms.partition("@")
    if name not in set(Meter) or not allowance.isdecimal() or (priced and not rate):
        raise Invalid(f"{text!r} is not METER=INCLUDED@RUPEES, with a meter of {', '.join(Meter)}")
    return MeterPrice(meter=Meter(name), allowance=int(allowance), rate_paise=in_paise(rate or "0"))
