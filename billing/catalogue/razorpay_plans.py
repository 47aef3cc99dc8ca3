"""A plan's version at Razorpay: its price there includes GST, so there is one for each tax treatment.

Nothing makes a plan unique at Razorpay but our notes, and none can be deleted; a second one of the same price is
harmless, for only the one that is remembered here is subscribed to. So: the wish is stored, the call made, the id
stored; after a doubt the notes are looked for before another is made. Razorpay away: raises RazorpayError, the wish
stays, and whoever needs the plan (a subscription) comes again.
"""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.catalogue.plans import find_plan, plan_version
from billing.context import BillingContext
from billing.gst.tax import INDIA, SAAS_RATES, Component, Supply, Treatment, gross_of
from billing.models import Plan, RazorpayPlan
from billing.razorpay.errors import RazorpayError, RazorpayRefused
from core.clock import now_ms
from core.errors import Invalid, Unavailable
from core.logs import get_logger

MANDATE_PAISE = 1_500_000
"""Above it a debit needs the customer's word each time: RBI's limit for mandates (facts 6)."""
_COMPONENTS = {
    Treatment.INTRA_STATE: ((Component.CGST, SAAS_RATES.cgst_bp), (Component.SGST, SAAS_RATES.sgst_bp)),
    Treatment.INTER_STATE: ((Component.IGST, SAAS_RATES.igst_bp),),
    Treatment.EXPORT: (),
}

log = get_logger(__name__)


def gross_for(base_paise: int, treatment: Treatment) -> int:
    """The price with its tax: the same for every place of one treatment."""
    return gross_of(base_paise, Supply(treatment, INDIA, _COMPONENTS[treatment]))


async def intend(session: AsyncSession, plan: Plan, treatment: Treatment) -> None:
    """Stores the wish, once."""
    values = {
        "code": plan.code,
        "version": plan.version,
        "treatment": treatment.value,
        "gross_paise": gross_for(plan.base_paise, treatment),
        "state": "intended",
    }
    await session.execute(insert(RazorpayPlan).values(**values).on_conflict_do_nothing())


async def ensure(context: BillingContext, code: str, version: int, treatment: Treatment) -> str:
    """The id of the plan at Razorpay, which is made if there is none.

    Raises NotFound, Invalid, RazorpayError, Unavailable.
    """
    key = (code, version, treatment.value)
    async with context.database.session() as session:
        plan = await find_plan(session, code, version)
        if not plan.base_paise:
            raise Invalid("this plan has no base price: Razorpay has no part in it")
        await intend(session, plan, treatment)
        row = await session.get_one(RazorpayPlan, key, with_for_update=True, populate_existing=True)
        if row.razorpay_id is not None:
            return row.razorpay_id
        was_tried = row.state == "submitting"
        row.state, row.tried_ms, row.error = "submitting", now_ms(), None
    notes = {"naka_plan": plan_version(plan), "treatment": treatment.value}
    try:
        razorpay_id = await _lost(context, notes, row.gross_paise) if was_tried else None
        if razorpay_id is None:
            name = f"{plan.name} (incl. GST)" if treatment is not Treatment.EXPORT else plan.name
            made = await context.razorpay.create_plan(name=name, amount_paise=row.gross_paise, notes=notes)
            razorpay_id = made.id
    except RazorpayError as error:
        await _note(context, key, "intended" if isinstance(error, RazorpayRefused) else "submitting", str(error))
        raise
    return await _keep(context, key, razorpay_id)


async def ensure_all(context: BillingContext, plan: Plan, treatments: tuple[Treatment, ...]) -> None:
    """Every treatment's, when a plan is published. What fails is made when it is needed."""
    for treatment in treatments if plan.base_paise else ():
        try:
            await ensure(context, plan.code, plan.version, treatment)
        except (RazorpayError, Unavailable) as error:
            log.warning("razorpay_plan_later", plan=plan_version(plan), treatment=treatment.value, error=str(error))


async def copies_of(session: AsyncSession, code: str | None) -> list[RazorpayPlan]:
    """What Razorpay has of the plans, or of one, or is to have."""
    query = select(RazorpayPlan).order_by(RazorpayPlan.code, RazorpayPlan.version, RazorpayPlan.treatment)
    return list(await session.scalars(query if code is None else query.where(RazorpayPlan.code == code)))


async def _lost(context: BillingContext, notes: dict[str, str], gross_paise: int) -> str | None:
    """One that a call made whose answer was lost."""
    found = [plan for plan in await context.razorpay.find_plans(notes) if plan.item.get("amount") == gross_paise]
    return found[0].id if found else None


async def _keep(context: BillingContext, key: tuple[str, int, str], razorpay_id: str) -> str:
    """The first id that is stored is the one: two that made it at once go on with the same."""
    async with context.database.session() as session:
        row = await session.get_one(RazorpayPlan, key, with_for_update=True, populate_existing=True)
        if row.razorpay_id is None:
            row.razorpay_id, row.state, row.error = razorpay_id, "created", None
        return row.razorpay_id


async def _note(context: BillingContext, key: tuple[str, int, str], state: str, error: str) -> None:
    async with context.database.session() as session:
        row = await session.get_one(RazorpayPlan, key, with_for_update=True, populate_existing=True)
        if row.razorpay_id is None:
            row.state, row.error = state, error[:500]
