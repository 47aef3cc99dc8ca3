"""`naka plan`: plans and their versions."""

from typing import Annotated

import typer

from api.cli.limits import read_limits
from api.cli.session import AsJson, Desk, at_desk, show, show_all
from api.routes.admin.plans import NewPlan, PlanItem
from billing.plans import list_plans, publish_plan

app = typer.Typer(no_args_is_help=True, help="Plans: the limits that tenants start with.")

_FORM = "METER/WINDOW=N"
UserLimits = Annotated[list[str] | None, typer.Option("--user", metavar=_FORM, help="A limit of each user.")]
TenantLimits = Annotated[list[str] | None, typer.Option("--tenant", metavar=_FORM, help="A limit of the tenant.")]
UserConcurrency = Annotated[int | None, typer.Option(help="Requests at a time of each user.")]
TenantConcurrency = Annotated[int | None, typer.Option(help="Requests at a time of the tenant.")]


@app.command()
def publish(
    code: Annotated[str, typer.Argument(help="The plan's code: a-z, 0-9 and hyphens.")],
    name: Annotated[str, typer.Argument(help="The name that people read.")],
    user: UserLimits = None,
    tenant: TenantLimits = None,
    user_concurrency: UserConcurrency = None,
    tenant_concurrency: TenantConcurrency = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Publish a plan, or its next version. Tenants stay on the version they are on."""
    new = NewPlan(
        code=code,
        name=name,
        user=read_limits(user, user_concurrency),
        tenant=read_limits(tenant, tenant_concurrency),
    )

    async def work(desk: Desk) -> PlanItem:
        made = await publish_plan(desk.session, desk.actor, code=new.code, name=new.name, limits=new.as_limits())
        return PlanItem.of(made)

    show(at_desk(work), as_json=as_json)


@app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List every version of every plan."""

    async def work(desk: Desk) -> list[PlanItem]:
        return [PlanItem.of(plan) for plan in await list_plans(desk.session)]

    show_all(at_desk(work), ["code", "version", "name", "user", "tenant"], as_json=as_json)
