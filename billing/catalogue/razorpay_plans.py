"""Plans at Razorpay: one per version and tax treatment, since a price there includes GST.

Only our notes make a plan unique at Razorpay, and none can be deleted. A duplicate of the same price is harmless,
because only the remembered one is subscribed to. Razorpay down: raises RazorpayError, the intent stays, and the next
subscription to the plan continues.
"""

from functools import partial

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.catalogue.plans import find_plan
from billing.context import BillingContext
from billing.gst.tax import INDIA, SAAS_RATES, Component, Supply, Treatment, gross_of
from billing.models import Plan, RazorpayPlan
from billing.models.catalogue import plan_version
from billing.models.states import RazorpayPlanState
from billing.razorpay import entities
from billing.razorpay.errors import RazorpayError, RazorpayRefused
from billing.writes import MAX_ERROR, claim, submit
from core.errors import Invalid, Unavailable
from core.logs import get_logger

MANDATE_PAISE = 1_500_000
"""Above it each debit needs the customer's approval: RBI's limit for mandates (Rs 15,000)."""
_COMPONENTS = {
    Treatment.INTRA_STATE: ((Component.CGST, SAAS_RATES.cgst_bp), (Component.SGST, SAAS_RATES.sgst_bp)),
    Treatment.INTER_STATE: ((Component.IGST, SAAS_RATES.igst_bp),),
    Treatment.EXPORT: (),
}

PlanKey = tuple[str, int, str]

log = get_logger(__name__)


def gross_for(base_paise: int, treatment: Treatment) -> int:
    """The price with tax, which is the same for every place of one treatment."""
    return gross_of(base_paise, Supply(treatment, INDIA, _COMPONENTS[treatment]))


async def store_plan_intent(session: AsyncSession, plan: Plan, treatment: Treatment) -> None:
    """Stores the intent, once."""
    values = {
        "code": plan.code,
        "version": plan.version,
        "treatment": treatment.value,
        "gross_paise": gross_for(plan.base_paise, treatment),
        "state": RazorpayPlanState.INTENDED,
    }
    await session.execute(insert(RazorpayPlan).values(**values).on_conflict_do_nothing())


async def ensure_razorpay_plan(context: BillingContext, code: str, version: int, treatment: Treatment) -> str:
    """The plan's id at Razorpay; creates the plan there if it doesn't exist.

    Raises NotFound, Invalid, RazorpayError, Unavailable.
    """
    key = (code, version, treatment.value)
    async with context.database.session() as session:
        plan = await find_plan(session, code, version)
        if not plan.base_paise:
            raise Invalid("this plan has no base price, so Razorpay doesn't need it")
        await store_plan_intent(session, plan, treatment)
        row = await _locked(session, key)
        if row.razorpay_id is not None:
            return row.razorpay_id
        was_tried = not claim(row)
    notes = {"naka_plan": plan_version(plan), "treatment": treatment.value}
    name = f"{plan.name} (incl. GST)" if treatment is not Treatment.EXPORT else plan.name
    await submit(
        partial(context.razorpay.create_plan, name=name, amount_paise=row.gross_paise, notes=notes),
        apply=partial(_store_id, context, key),
        on_refused=partial(_refuse, context, key),
        on_error=partial(_store_error, context, key, RazorpayPlanState.SUBMITTING),
        find=partial(_find_created, context, notes, row.gross_paise) if was_tried else None,
    )
    async with context.database.session() as session:
        return str((await session.get_one(RazorpayPlan, key)).razorpay_id)


async def ensure_razorpay_plans(context: BillingContext, plan: Plan, treatments: tuple[Treatment, ...]) -> None:
    """Creates every treatment's plan when a version is published. A failed one is created when it is needed."""
    for treatment in treatments if plan.base_paise else ():
        try:
            await ensure_razorpay_plan(context, plan.code, plan.version, treatment)
        except (RazorpayError, Unavailable) as error:
            log.warning("razorpay_plan_later", plan=plan_version(plan), treatment=treatment.value, error=str(error))


async def list_razorpay_plans(session: AsyncSession, code: str | None) -> list[RazorpayPlan]:
    """The plans at Razorpay, created or intended; of all plans or of one."""
    query = select(RazorpayPlan).order_by(RazorpayPlan.code, RazorpayPlan.version, RazorpayPlan.treatment)
    return list(await session.scalars(query if code is None else query.where(RazorpayPlan.code == code)))


async def _locked(session: AsyncSession, key: PlanKey) -> RazorpayPlan:
    return await session.get_one(RazorpayPlan, key, with_for_update=True, populate_existing=True)


async def _find_created(context: BillingContext, notes: dict[str, str], gross_paise: int) -> entities.Plan | None:
    """A plan that an unanswered call created."""
    found = await context.razorpay.find_plans(notes)
    return next((plan for plan in found if plan.item.get("amount") == gross_paise), None)


async def _store_id(context: BillingContext, key: PlanKey, made: entities.Plan) -> None:
    """Stores the id. The first one stored wins, so two workers that created a plan at once use the same."""
    async with context.database.session() as session:
        row = await _locked(session, key)
        if row.razorpay_id is None:
            row.razorpay_id, row.state, row.error = made.id, RazorpayPlanState.CREATED, None


async def _refuse(context: BillingContext, key: PlanKey, refused: RazorpayRefused) -> entities.Plan | None:
    await _store_error(context, key, RazorpayPlanState.INTENDED, refused)
    raise refused


async def _store_error(context: BillingContext, key: PlanKey, state: RazorpayPlanState, error: RazorpayError) -> None:
    async with context.database.session() as session:
        row = await _locked(session, key)
        if row.razorpay_id is None:
            row.state, row.error = state, str(error)[:MAX_ERROR]
