"""Documents for a period's usage: a bill if its price rose, credit notes if it fell, none if it is unchanged.

The whole period is priced each time, less what its documents billed. The next pricing replaces drafts, so a correction
changes the draft itself, and small amounts add up to a collectable one. A bill that an operator dropped (`void`) counts
as billed. The same reading gives the same documents, however often.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import BillingContext
from billing.documents.bill_lines import overage_lines
from billing.findings import record_finding, resolve_finding
from billing.gst.rupees import rupees
from billing.invoicing.carried import carried_lines, take_over, waived_documents
from billing.invoicing.credit_notes import issue_credit_notes
from billing.invoicing.issuing import Parties, billed_by, copied, finalise, new_document, totals_of
from billing.invoicing.prepaid_bills import bill_prepaid
from billing.models import Bill, BillingPeriod, Plan
from billing.models.bills import SMALLEST_PAISE
from billing.models.states import DRAFT, BillKind, BillState
from billing.rating.overage import OverageBill, PastAllowance, PricingOutcome, Reading, price_period
from billing.wallet.bounds import billed_terms

NO_PROFILE = "no billing profile"
"""Reason of a held bill without parties. It is billed anew once the profiles exist."""
USUAL_OF_BILLS = 6
"""Bills whose median is a tenant's usual amount."""


async def bill_usage(
    session: AsyncSession,
    context: BillingContext,
    period: BillingPeriod,
    reading: Reading,
    parties: Parties | None,
    now_ms: int,
) -> Sequence[Bill]:
    """Issues or holds the documents that the reading requires; empty if none. The tenant's lock is held."""
    documents = await documents_of(session, period)
    billed = billed_by(bill for bill in documents if not is_draft(bill))
    terms = await billed_terms(session, period, billed, now_ms)
    drafts = [bill for bill in documents if is_draft(bill)]
    numbered = [bill for bill in documents if bill.number is not None]
    owed = price_period(reading, terms, billed)
    lack_profile = any(draft.reason == NO_PROFILE for draft in drafts)
    if drafts and billed_by(drafts).equals(owed.taken) and not (lack_profile and parties):
        return ()
    for draft in drafts:
        await replace_draft(session, draft, now_ms)
    match owed.kind:
        case PricingOutcome.NOTHING:
            return ()
        case PricingOutcome.BILL:
            if terms.past_allowance is PastAllowance.PREPAID and parties is not None:
                return (await bill_prepaid(session, context, period, owed, parties, now_ms),)
            return (await _bill(session, context, period, owed, parties, now_ms),)
        case PricingOutcome.CREDIT_NOTE:
            return await issue_credit_notes(session, context, numbered, reading, terms, now_ms)


async def documents_of(session: AsyncSession, period: BillingPeriod) -> Sequence[Bill]:
    """The overage bills and credit notes of a period, oldest first."""
    query = (
        select(Bill)
        .where(Bill.tenant_id == period.tenant_id, Bill.period_id == period.period_id)
        .where(Bill.kind.in_((BillKind.OVERAGE, BillKind.CREDIT_NOTE)))
        .order_by(Bill.id)
    )
    return (await session.scalars(query)).all()


def is_draft(bill: Bill) -> bool:
    """Whether the next pricing of its period replaces it."""
    return bill.number is None and bill.state in DRAFT


async def replace_draft(session: AsyncSession, draft: Bill, now_ms: int) -> None:
    """Voids a draft, so that it counts as not billed, and resolves its finding."""
    draft.state, draft.taken, draft.reason = BillState.VOID, {}, "replaced"
    await close_held_finding(session, draft, now_ms)


async def close_held_finding(session: AsyncSession, bill: Bill, now_ms: int) -> None:
    """Resolves the finding of a held bill."""
    await resolve_finding(session, _finding(bill), now_ms)


async def _bill(
    session: AsyncSession,
    context: BillingContext,
    period: BillingPeriod,
    owed: OverageBill,
    parties: Parties | None,
    now_ms: int,
) -> Bill:
    """Creates a bill: final, or held with a reason."""
    held = NO_PROFILE if parties is None else await _unusual(session, context, period, owed.taxable_paise)
    waived = () if held else await waived_documents(session, period.tenant_id, period.period_id)
    taxable_paise = owed.taxable_paise + sum(one.taxable_paise for one in waived)
    if totals_of(taxable_paise, parties)["total_paise"] < SMALLEST_PAISE:
        waived, taxable_paise = (), owed.taxable_paise
    bill = await new_document(
        session,
        period,
        BillKind.OVERAGE,
        now_ms,
        lines=[*overage_lines(owed), *carried_lines(waived)],
        taken=msgspec.to_builtins(owed.taken),
        **totals_of(taxable_paise, parties),
        **copied(parties),
        reason=held,
    )
    if held is None:
        await finalise(session, context, bill, now_ms)
        take_over(waived, bill)
    else:
        detail = {"bill": str(bill.id), "period": period.period_id, "taxable_paise": owed.taxable_paise, "why": held}
        await record_finding(session, _finding(bill), "bill_held", tenant_id=period.tenant_id, **detail)
    return bill


async def _unusual(
    session: AsyncSession, context: BillingContext, period: BillingPeriod, taxable_paise: int
) -> str | None:
    """Why the bill must be held for an operator; None if its amount is usual."""
    usual_paise = await _usual_paise(session, period)
    plan = await session.get(Plan, (period.plan_code, period.plan_version))
    of_threshold = 2 * (plan.threshold_paise or 0) if plan is not None else 0
    if taxable_paise <= max(context.rules.hold_min_paise, context.rules.hold_factor * usual_paise, of_threshold):
        return None
    return f"{rupees(taxable_paise)} before tax, where {rupees(usual_paise)} is usual"


async def _usual_paise(session: AsyncSession, period: BillingPeriod) -> int:
    """The median of the last bills of periods up to this one, so that a late close decides like one in time.

    For a tenant without such a bill, the plan's base price.
    """
    query = (
        select(Bill.taxable_paise)
        .where(
            Bill.tenant_id == period.tenant_id,
            Bill.kind == BillKind.OVERAGE,
            Bill.number.is_not(None),
            Bill.ends_ms <= period.ends_ms,
        )
        .order_by(Bill.ends_ms.desc(), Bill.id.desc())
        .limit(USUAL_OF_BILLS)
    )
    last = sorted((await session.scalars(query)).all())
    if last:
        return (last[(len(last) - 1) // 2] + last[len(last) // 2]) // 2
    plan = await session.get(Plan, (period.plan_code, period.plan_version))
    return 0 if plan is None else plan.base_paise


def _finding(bill: Bill) -> str:
    return f"bill-held:{bill.id}"
