"""The documents of a period's usage: a bill where its price grew, credit notes where it fell, nothing where it stood.

A period is priced whole each time, less what its documents took. Those without a number are drafts (held for an
operator's word or a profile, or too small to be moved): the next pricing replaces them, so that a correction meanwhile
corrects the bill itself, and small sums add up to one that can be collected. What an operator let go (`void`) stays
taken: it is not asked for again by a later pricing. The same reading leads to the same documents, however often.
"""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import BillingContext, record_finding
from billing.documents.bill_lines import overage_lines
from billing.gst.rupees import rupees
from billing.invoicing.already_billed import taken_by, takes_the_same
from billing.invoicing.credit_notes import credit
from billing.invoicing.issuing import Parties, copied, finalise, next_seq, parties_of, totals_of
from billing.models import Bill, BillingFinding, BillingPeriod, Plan
from billing.rating.overage import BillKind, OverageBill, PastAllowance, Reading, Terms, price_period
from core.ids import uuid7

NO_PROFILE = "no billing profile"
"""Why a bill is held that nobody can be named on: it is made anew once the profiles are there."""
HABIT_BILLS = 6


async def bill_usage(
    session: AsyncSession, context: BillingContext, period: BillingPeriod, reading: Reading, now_ms: int
) -> Sequence[Bill]:
    """What the period's reading asks for now; empty when it asks for nothing new. The tenant's lock is held."""
    terms = terms_at_close(period)
    documents = await documents_of(session, period)
    drafts = [bill for bill in documents if is_draft(bill)]
    numbered = [bill for bill in documents if bill.number is not None]
    owed = price_period(reading, terms, taken_by(bill for bill in documents if not is_draft(bill)))
    parties = await parties_of(session, period.tenant_id)
    if drafts and takes_the_same(taken_by(drafts), owed.taken) and not (_lacks_profile(drafts) and parties):
        return ()
    for draft in drafts:
        await replace_draft(session, draft, now_ms)
    match owed.kind:
        case BillKind.NOTHING:
            return ()
        case BillKind.BILL:
            return (await _bill(session, context, period, owed, parties, now_ms),)
        case BillKind.CREDIT_NOTE:
            return await credit(session, context, numbered, reading, terms, now_ms)


def terms_at_close(period: BillingPeriod) -> Terms:
    """The period's terms; a trial bills nothing, whatever its plan says."""
    terms = msgspec.convert(period.terms, Terms)
    if period.kind == "trial":
        return Terms(terms.meters, PastAllowance.BLOCK)
    return terms


async def documents_of(session: AsyncSession, period: BillingPeriod) -> Sequence[Bill]:
    """The overage bills and credit notes of a period, in the order they were made."""
    query = (
        select(Bill)
        .where(Bill.tenant_id == period.tenant_id, Bill.period_id == period.period_id, Bill.kind != "base")
        .order_by(Bill.id)
    )
    return (await session.scalars(query)).all()


def is_draft(bill: Bill) -> bool:
    """Whether the next pricing of its period takes it up again."""
    return bill.number is None and bill.state in {"held", "waived"}


async def replace_draft(session: AsyncSession, draft: Bill, now_ms: int) -> None:
    """It takes nothing from here on, and nobody needs to look at it any more."""
    draft.state, draft.taken, draft.reason = "void", {}, "replaced"
    await close_finding(session, draft, now_ms)


async def close_finding(session: AsyncSession, bill: Bill, now_ms: int) -> None:
    """Nobody has to look at this held bill any more."""
    found = update(BillingFinding).where(BillingFinding.key == _finding(bill), BillingFinding.closed_ms.is_(None))
    await session.execute(found.values(closed_ms=now_ms))


async def _bill(
    session: AsyncSession,
    context: BillingContext,
    period: BillingPeriod,
    owed: OverageBill,
    parties: Parties | None,
    now_ms: int,
) -> Bill:
    """A new bill: final, or held with its reason."""
    held = NO_PROFILE if parties is None else await _beyond_habit(session, context, period, owed.taxable_paise)
    bill = Bill(
        tenant_id=period.tenant_id,
        id=uuid7(now_ms),
        kind="overage",
        state="held",
        period_id=period.period_id,
        seq=await next_seq(session, period.tenant_id, period.period_id, "overage"),
        starts_ms=period.starts_ms,
        ends_ms=period.ends_ms,
        subscription_id=period.subscription_id,
        plan_code=period.plan_code,
        plan_version=period.plan_version,
        lines=overage_lines(owed),
        taken=msgspec.to_builtins(owed.taken),
        **totals_of(owed.taxable_paise, parties),
        **copied(parties),
        reason=held,
        created_ms=now_ms,
    )
    session.add(bill)
    await session.flush()
    if held is None:
        await finalise(session, context, bill, now_ms)
    else:
        detail = {"bill": str(bill.id), "period": period.period_id, "taxable_paise": owed.taxable_paise, "why": held}
        await record_finding(session, _finding(bill), "bill_held", tenant_id=period.tenant_id, **detail)
    return bill


async def _beyond_habit(
    session: AsyncSession, context: BillingContext, period: BillingPeriod, taxable_paise: int
) -> str | None:
    """Why an operator is to look at such a bill first, if so."""
    usual_paise = await _usual(session, period)
    if taxable_paise <= max(context.rules.hold_min_paise, context.rules.hold_factor * usual_paise):
        return None
    return f"{rupees(taxable_paise)} before tax, where {rupees(usual_paise)} is usual"


async def _usual(session: AsyncSession, period: BillingPeriod) -> int:
    """The median of the last bills of periods up to this one, so that a late close judges as one in time would.

    A tenant without such a bill is judged by what its plan costs.
    """
    query = (
        select(Bill.taxable_paise)
        .where(
            Bill.tenant_id == period.tenant_id,
            Bill.kind == "overage",
            Bill.number.is_not(None),
            Bill.ends_ms <= period.ends_ms,
        )
        .order_by(Bill.ends_ms.desc(), Bill.id.desc())
        .limit(HABIT_BILLS)
    )
    last = sorted((await session.scalars(query)).all())
    if last:
        return (last[(len(last) - 1) // 2] + last[len(last) // 2]) // 2
    plan = await session.get(Plan, (period.plan_code, period.plan_version))
    return 0 if plan is None else plan.base_paise


def _lacks_profile(drafts: Iterable[Bill]) -> bool:
    return any(draft.reason == NO_PROFILE for draft in drafts)


def _finding(bill: Bill) -> str:
    return f"bill-held:{bill.id}"
