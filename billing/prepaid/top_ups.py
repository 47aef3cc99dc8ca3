"""Top-ups: money that a tenant pays into its wallet in advance.

A top-up is a receipt voucher that is open, without a number, until its money came; the existing charges collect it, so
repeats, lost answers and excess are handled as for any bill. It is no debt: it is never due, and given up when its link
is gone. Money that comes for one that was given up is added all the same. Postgres down: Unavailable.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.periods import new_period, period_at
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.documents.bill_lines import advance_lines
from billing.invoicing.issuing import copied, new_document, parties_of, totals_of
from billing.invoicing.prepaid_bills import AUTOMATIC, BY_QR_CODE
from billing.models import Bill, Charge, Plan
from billing.models.states import LIVE, BillKind, BillState, ChargeState, PeriodKind
from billing.rating.overage import PastAllowance
from billing.rating.terms import terms_of
from billing.wallet.bounds import unused_paise
from billing.writes import for_each_key
from core.clock import now_ms
from core.errors import Conflict, Invalid
from core.tenancy.accounts import find_tenant
from core.tenancy.audit import Actor, record

MIN_PAISE = 1_000
MAX_PAISE = 100_000_000
WALLET = "wallet"
"""The period of vouchers, which belong to none."""


async def top_up(
    context: BillingContext,
    actor: Actor,
    tenant_id: UUID,
    paise: int,
    *,
    automatic: bool = False,
    by_qr_code: bool = False,
    below_paise: int | None = None,
) -> Bill:
    """Stores a top-up of so much before tax, or returns the open one of this amount. Raises Invalid, Conflict.

    A tenant has one open top-up that it pays itself, and one that its mandate pays; a new amount replaces the former,
    and so does `by_qr_code`: a UPI QR code pays it instead of a payment link.
    `below_paise`: only if less than that is unused, which an earlier top-up may have changed meanwhile.
    """
    if not MIN_PAISE <= paise <= MAX_PAISE:
        raise Invalid(f"a top-up is of {MIN_PAISE // 100} to {MAX_PAISE // 100} rupees before GST")
    at_ms = now_ms()
    reason = AUTOMATIC if automatic else BY_QR_CODE if by_qr_code else None
    async with context.tenant_transaction(tenant_id) as session:
        plan = await prepaid_plan(session, tenant_id, at_ms)
        if plan is None:
            raise Conflict("the plan is not prepaid, so it has no wallet")
        parties = await parties_of(session, tenant_id)
        if parties is None:
            raise Invalid("a billing profile is required first")
        for other in await open_top_ups(session, tenant_id):
            if (other.reason == AUTOMATIC) is automatic:
                if automatic or (other.taxable_paise, other.reason) == (paise, reason):
                    return other
                give_up(session, other, "replaced")
        if below_paise is not None and await unused_paise(session, tenant_id, at_ms) >= below_paise:
            raise Conflict("the balance is not low any more")
        like = new_period(tenant_id, WALLET, PeriodKind.MONTH, at_ms, at_ms + 1, plan)
        bill = await new_document(
            session,
            like,
            BillKind.RECEIPT_VOUCHER,
            at_ms,
            lines=advance_lines(paise),
            taken={},
            **totals_of(paise, parties),
            **copied(parties),
            reason=reason,
        )
        bill.state = BillState.OPEN
        target, after = f"bill:{bill.id}", {"paise": paise, "total_paise": bill.total_paise}
        record(session, actor, "wallet.top_up", tenant_id=tenant_id, target=target, after=after)
        enqueue_after_commit(session, COLLECT)
    return bill


async def prepaid_plan(session: AsyncSession, tenant_id: UUID, at_ms: int) -> Plan | None:
    """The plan in force if it is prepaid, else None. Raises NotFound."""
    period = await period_at(session, tenant_id, at_ms)
    if period is not None:
        key: tuple[str | None, int | None] = (period.plan_code, period.plan_version)
    else:
        tenant = await find_tenant(session, tenant_id)
        key = (tenant.plan_code, tenant.plan_version)
    plan = None if key[0] is None else await session.get(Plan, key)
    return plan if plan is not None and terms_of(plan).past_allowance is PastAllowance.PREPAID else None


async def open_top_ups(session: AsyncSession, tenant_id: UUID) -> Sequence[Bill]:
    """The top-ups that wait for their money, newest first."""
    query = select(Bill).where(
        Bill.tenant_id == tenant_id, Bill.kind == BillKind.RECEIPT_VOUCHER, Bill.state == BillState.OPEN
    )
    return (await session.scalars(query.order_by(Bill.id.desc()))).all()


async def give_up_unpaid(context: BillingContext) -> None:
    """Gives up every top-up whose only charge is gone. A failing one doesn't stop the others."""
    await for_each_key(context, _unpaid().order_by(Bill.id), _give_up_unpaid, "top_up")


def _unpaid() -> Select[UUID, UUID]:
    its = select(Charge.id).where(Charge.tenant_id == Bill.tenant_id, Charge.bill_id == Bill.id)
    waits = its.where(Charge.state.in_((*LIVE, ChargeState.FAILED, ChargeState.PAID))).exists()
    return select(Bill.tenant_id, Bill.id).where(
        Bill.kind == BillKind.RECEIPT_VOUCHER, Bill.state == BillState.OPEN, its.exists(), ~waits
    )


async def _give_up_unpaid(context: BillingContext, tenant_id: UUID, bill_id: UUID) -> None:
    async with context.tenant_transaction(tenant_id) as session:
        still = _unpaid().where(Bill.tenant_id == tenant_id, Bill.id == bill_id)
        if (await session.execute(still)).one_or_none() is not None:
            give_up(session, await session.get_one(Bill, (tenant_id, bill_id)), "not paid")


def give_up(session: AsyncSession, bill: Bill, why: str) -> None:
    """Gives up an open top-up; its charge is cancelled. An automatic one stays known as such."""
    bill.reason = f"{AUTOMATIC}: {why}" if bill.reason == AUTOMATIC else why
    bill.state = BillState.VOID
    enqueue_after_commit(session, COLLECT)
