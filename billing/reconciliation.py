"""Comparison of Razorpay's records with ours: repairs what a lost webhook left, and reports the rest.

Each difference is repaired by fetching that one entity through the same functions that webhooks use. One that a fetch
resolves is `healed`; one that stays is `unexplained` and recorded as a finding. Entities without our notes belong to
another product of the account and are only counted. Razorpay down: raises RazorpayError, and nothing is changed.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.collection.charges import LIST_LAG_MS
from billing.collection.collection import refresh_charge, refresh_charge_by_payment
from billing.context import BillingContext
from billing.findings import record_finding
from billing.models import Charge, Payment, RazorpayReconciliation, Refund, Subscription
from billing.models.states import CAPTURED, TERMINAL, ChargeState, RefundState, SubscriptionState
from billing.payments.payments import find_payment
from billing.payments.refunds import refresh_refunds
from billing.razorpay.entities import Payment as RazorpayPayment
from billing.razorpay.entities import Subscription as RazorpaySubscription
from billing.razorpay.errors import RazorpayRefused
from billing.subscriptions.orphans import adopt_or_cancel
from billing.subscriptions.push import push_subscription
from billing.subscriptions.sync import find_subscription, refresh_subscription
from core.clock import DAY_MS, now_ms
from core.errors import NakaError
from core.ids import uuid7
from core.logs import get_logger

WINDOW_DAYS = 60

log = get_logger(__name__)


@dataclass(slots=True)
class RazorpayReport:
    """The result of one comparison. Amounts are paise, of our payments in the window."""

    healed: list[dict[str, Any]] = field(default_factory=list)
    unexplained: list[dict[str, Any]] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    foreign: int = 0
    collected_paise: int = 0
    refunded_paise: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether no difference is left."""
        return not self.unexplained

    def as_json(self) -> dict[str, Any]:
        """The stored form."""
        return asdict(self)


async def reconcile_razorpay(context: BillingContext, *, days: int = WINDOW_DAYS) -> RazorpayReport:
    """Compares subscriptions, links, add-ons, payments and refunds, repairs differences, and stores the result.

    Raises RazorpayError, Unavailable.
    """
    found = RazorpayReport()
    since_ms = now_ms() - days * DAY_MS
    await _subscriptions(context, found, since_ms)
    await _charges(context, found, since_ms)
    await _payments(context, found, since_ms)
    await _refunds(context, found)
    async with context.database.session() as session:
        session.add(
            RazorpayReconciliation(
                id=uuid7(),
                ran_ms=now_ms(),
                healed=len(found.healed),
                unexplained=len(found.unexplained),
                report=found.as_json(),
            )
        )
        for one in found.unexplained:
            key, detail = f"unexplained:{one['kind']}:{one['id']}", {"subject": one["kind"], "what": one["what"]}
            await record_finding(session, key, "unexplained", id=one["id"], **detail)
    log.info("razorpay_reconciled", healed=len(found.healed), unexplained=len(found.unexplained))
    return found


async def _subscriptions(context: BillingContext, found: RazorpayReport, since_ms: int) -> None:
    listed = {one.id: one for one in await context.razorpay.list_subscriptions(since=since_ms // 1000)}
    async with context.database.session() as session:
        rows = list(await session.scalars(select(Subscription).where(Subscription.razorpay_id.is_not(None))))
    known = {row.razorpay_id: row for row in rows}
    found.compared["subscriptions"] = len(rows)
    for one in listed.values():
        if one.id in known:
            continue
        if await adopt_or_cancel(context, one):
            found.healed.append({"kind": "subscription", "id": one.id, "what": "not known to us"})
        else:
            found.foreign += 1
    for row in rows:
        await _subscription(context, found, row, listed.get(row.razorpay_id or ""))
    await _lost_intents(context, found)


async def _subscription(
    context: BillingContext, found: RazorpayReport, row: Subscription, listed: RazorpaySubscription | None
) -> None:
    """Refreshes a subscription that is not ended, or that the list shows differently."""
    if row.status in TERMINAL and (listed is None or _listed_state(listed) == _stored_state(row)):
        return
    before = _stored_state(row)
    try:
        await refresh_subscription(context, row.tenant_id, row.id)
    except RazorpayRefused as refused:
        found.unexplained.append({"kind": "subscription", "id": row.razorpay_id, "what": str(refused)})
        return
    after = _stored_state(await context.read(Subscription, row.tenant_id, row.id))
    if after != before:
        found.healed.append({"kind": "subscription", "id": row.razorpay_id, "what": f"{before} -> {after}"})


async def _lost_intents(context: BillingContext, found: RazorpayReport) -> None:
    """Continues calls whose answers were lost."""
    async with context.database.session() as session:
        rows = list(
            await session.scalars(select(Subscription).where(Subscription.state == SubscriptionState.SUBMITTING))
        )
    for row in rows:
        await push_subscription(context, row.tenant_id, row.id)
        found.compared["intents"] = found.compared.get("intents", 0) + 1


def _listed_state(one: RazorpaySubscription) -> tuple[Any, ...]:
    return one.status, one.paid_count, None if one.current_end is None else one.current_end * 1000


def _stored_state(row: Subscription) -> tuple[Any, ...]:
    return row.status, row.paid_count, row.current_end_ms


async def _charges(context: BillingContext, found: RazorpayReport, since_ms: int) -> None:
    """Refreshes every live charge, and every other one of the window whose link is paid while the charge isn't."""
    until_ms = now_ms() + DAY_MS
    window = {"since": since_ms // 1000, "until": until_ms // 1000}
    links = {link.reference_id: link for link in await context.razorpay.list_payment_links(**window)}
    async with context.database.session() as session:
        rows = list(await session.scalars(select(Charge).where(Charge.created_ms >= since_ms)))
    ours = {row.reference for row in rows}
    found.compared["charges"] = len(rows)
    found.foreign += sum(1 for reference in links if reference not in ours)
    for row in rows:
        link = links.get(row.reference)
        is_live = row.state in {ChargeState.SUBMITTING, ChargeState.SUBMITTED}
        if is_live or (link is not None and link.status == "paid" and row.state != ChargeState.PAID):
            await _charge(context, found, row)


async def _charge(context: BillingContext, found: RazorpayReport, row: Charge) -> None:
    try:
        await refresh_charge(context, row.tenant_id, row.id)
    except (RazorpayRefused, NakaError) as error:
        found.unexplained.append({"kind": "charge", "id": str(row.id), "what": str(error)})
        return
    after = await context.read(Charge, row.tenant_id, row.id)
    if (after.state, after.razorpay_id) != (row.state, row.razorpay_id):
        found.healed.append({"kind": "charge", "id": str(row.id), "what": f"{row.state} -> {after.state}"})


async def _payments(context: BillingContext, found: RazorpayReport, since_ms: int) -> None:
    """Compares every captured payment by its amount and refunded amount."""
    until_ms = now_ms() + DAY_MS
    listed = await context.razorpay.list_payments(since=since_ms // 1000, until=until_ms // 1000)
    captured = [payment for payment in listed if payment.status in CAPTURED]
    async with context.database.session() as session:
        known = await _known(session, [payment.id for payment in captured])
    found.compared["payments"] = len(captured)
    for payment in captured:
        row = known.get(payment.id)
        if row is None or not _matches(payment, row):
            row = await _heal_payment(context, found, payment)
        if row is not None:
            found.collected_paise += row.amount_paise
            found.refunded_paise += row.refunded_paise


async def _known(session: AsyncSession, ids: Iterable[str]) -> dict[str, Payment]:
    rows = await session.scalars(select(Payment).where(Payment.razorpay_id.in_(list(ids))))
    return {row.razorpay_id: row for row in rows}


def _matches(payment: RazorpayPayment, row: Payment) -> bool:
    return (payment.amount, payment.amount_refunded) == (
        row.amount_paise,
        row.refunded_paise,
    ) and row.status in CAPTURED


async def _heal_payment(context: BillingContext, found: RazorpayReport, payment: RazorpayPayment) -> Payment | None:
    """Fetches what the payment paid for, and its refunds; None if it isn't ours."""
    if not await _refresh_paid(context, payment):
        found.foreign += 1
        return None
    await refresh_refunds(context, payment.id)
    async with context.database.session() as session:
        row = await find_payment(session, payment.id)
    one = {"kind": "payment", "id": payment.id, "what": f"{payment.amount} paise, {payment.status}"}
    (found.healed if row is not None and _matches(payment, row) else found.unexplained).append(one)
    return row


async def _refresh_paid(context: BillingContext, payment: RazorpayPayment) -> bool:
    """Refreshes the link or subscription that the payment paid; False if it isn't ours."""
    if await refresh_charge_by_payment(context, payment):
        return True
    async with context.database.session() as session:
        is_known = await find_payment(session, payment.id) is not None
    if payment.invoice_id is None:
        return is_known
    invoice = await context.razorpay.fetch_invoice(payment.invoice_id)
    if invoice.subscription_id is None:
        return is_known
    owner = await find_subscription(context, invoice.subscription_id)
    if owner is None:
        return is_known
    await refresh_subscription(context, owner.tenant_id, owner.id)
    return True


async def _refunds(context: BillingContext, found: RazorpayReport) -> None:
    """Refreshes our refunds that are under way for longer than a webhook takes."""
    async with context.database.session() as session:
        query = select(Refund).where(
            Refund.state.in_((RefundState.SUBMITTING, RefundState.PENDING)), Refund.created_ms < now_ms() - LIST_LAG_MS
        )
        rows = list(await session.scalars(query))
        found.compared["refunds"] = await session.scalar(select(func.count()).select_from(Refund)) or 0
    for row in rows:
        await refresh_refunds(context, row.payment_id)
        after = await context.read(Refund, row.tenant_id, row.id)
        if after.state != row.state:
            found.healed.append({"kind": "refund", "id": str(row.id), "what": f"{row.state} -> {after.state}"})
