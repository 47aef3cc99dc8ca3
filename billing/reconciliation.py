"""Razorpay's books beside ours: what a lost webhook left behind is fetched, what nobody can explain is listed.

The lists only say what to look at; what is applied is always a fetch of the one thing, by the same functions that the
webhooks lead to, so a repair is never another way of doing it. A difference that a fetch explains is `healed`; one
that stays is `unexplained`, and a finding. What bears none of our notes belongs to another product of the same account
and is only counted. Razorpay away: raises RazorpayError, nothing is changed, and the next hour compares again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.collection import charges
from billing.context import DAY_MS, BillingContext, record_finding
from billing.models import Charge, Payment, RazorpayReconciliation, Refund, Subscription
from billing.payments import refunds
from billing.razorpay.entities import Payment as RazorpayPayment
from billing.razorpay.entities import Subscription as RazorpaySubscription
from billing.razorpay.errors import RazorpayRefused
from billing.subscriptions.intents import TERMINAL
from billing.subscriptions.orphans import adopt_or_dismiss
from billing.subscriptions.push import drive_one
from billing.subscriptions.sync import refresh
from core.clock import now_ms
from core.errors import NakaError
from core.ids import uuid7
from core.logs import get_logger

WINDOW_DAYS = 60
_LAG_MS = 15 * 60_000
"""Lists lag by minutes: what is younger than this may be missing from one, and that means nothing."""
_MOVED = frozenset({"captured", "refunded"})

log = get_logger(__name__)


@dataclass(slots=True)
class Report:
    """What one comparison found. Amounts are paise, of the payments of the window that are ours."""

    healed: list[dict[str, Any]] = field(default_factory=list)
    unexplained: list[dict[str, Any]] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    foreign: int = 0
    collected_paise: int = 0
    refunded_paise: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left to explain."""
        return not self.unexplained

    def as_json(self) -> dict[str, Any]:
        """As it is stored and shown."""
        return {
            "healed": self.healed,
            "unexplained": self.unexplained,
            "compared": self.compared,
            "foreign": self.foreign,
            "collected_paise": self.collected_paise,
            "refunded_paise": self.refunded_paise,
        }


async def reconcile_razorpay(context: BillingContext, *, days: int = WINDOW_DAYS) -> Report:
    """Compares subscriptions, links, add-ons, payments and refunds; heals; stores what it found.

    Raises RazorpayError, Unavailable.
    """
    found = Report()
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


# ----------------------------------------------------------------------------------------------- subscriptions


async def _subscriptions(context: BillingContext, found: Report, since_ms: int) -> None:
    listed = {one.id: one for one in await context.razorpay.list_subscriptions(since=since_ms // 1000)}
    async with context.database.session() as session:
        rows = list(await session.scalars(select(Subscription).where(Subscription.razorpay_id.is_not(None))))
    known = {row.razorpay_id: row for row in rows}
    found.compared["subscriptions"] = len(rows)
    for one in listed.values():
        if one.id in known:
            continue
        if await adopt_or_dismiss(context, one):
            found.healed.append({"kind": "subscription", "id": one.id, "what": "not known to us"})
        else:
            found.foreign += 1
    for row in rows:
        await _subscription(context, found, row, listed.get(row.razorpay_id or ""))
    await _lost_intents(context, found)


async def _subscription(
    context: BillingContext, found: Report, row: Subscription, listed: RazorpaySubscription | None
) -> None:
    """Fetched when it lives, or when the list says other than we do."""
    if listed is None and row.status in TERMINAL:
        return
    if listed is not None and row.status in TERMINAL and _says(listed) == _knows(row):
        return
    before = _knows(row)
    try:
        await refresh(context, row.tenant_id, row.id)
    except RazorpayRefused as refused:
        found.unexplained.append({"kind": "subscription", "id": row.razorpay_id, "what": str(refused)})
        return
    async with context.database.session() as session:
        after = _knows(await session.get_one(Subscription, (row.tenant_id, row.id)))
    if after != before:
        found.healed.append({"kind": "subscription", "id": row.razorpay_id, "what": f"{before} -> {after}"})


async def _lost_intents(context: BillingContext, found: Report) -> None:
    """Calls whose answers never came."""
    async with context.database.session() as session:
        rows = list(await session.scalars(select(Subscription).where(Subscription.state == "submitting")))
    for row in rows:
        await drive_one(context, row.tenant_id, row.id)
        found.compared["intents"] = found.compared.get("intents", 0) + 1


def _says(one: RazorpaySubscription) -> tuple[Any, ...]:
    return one.status, one.paid_count, None if one.current_end is None else one.current_end * 1000


def _knows(row: Subscription) -> tuple[Any, ...]:
    return row.status, row.paid_count, row.current_end_ms


# ------------------------------------------------------------------------------------------- links and add-ons


async def _charges(context: BillingContext, found: Report, since_ms: int) -> None:
    """Every live charge, and every other one of the window whose link or add-on says other than we do."""
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
        is_live = row.state in {"submitting", "submitted"}
        if is_live or (link is not None and link.status == "paid" and row.state != "paid"):
            await _charge(context, found, row)


async def _charge(context: BillingContext, found: Report, row: Charge) -> None:
    try:
        await charges.refresh(context, row.tenant_id, row.id)
    except (RazorpayRefused, NakaError) as error:
        found.unexplained.append({"kind": "charge", "id": str(row.id), "what": str(error)})
        return
    async with context.database.session() as session:
        after = await session.get_one(Charge, (row.tenant_id, row.id))
    if (after.state, after.razorpay_id) != (row.state, row.razorpay_id):
        found.healed.append({"kind": "charge", "id": str(row.id), "what": f"{row.state} -> {after.state}"})


# ------------------------------------------------------------------------------------------------------- money


async def _payments(context: BillingContext, found: Report, since_ms: int) -> None:
    """Every payment that moved money, by its amount and by what was given back of it."""
    until_ms = now_ms() + DAY_MS
    listed = await context.razorpay.list_payments(since=since_ms // 1000, until=until_ms // 1000)
    moved = [payment for payment in listed if payment.status in _MOVED]
    async with context.database.session() as session:
        known = await _known(session, [payment.id for payment in moved])
    found.compared["payments"] = len(moved)
    for payment in moved:
        row = known.get(payment.id)
        if row is None or not _agree(payment, row):
            row = await _heal_payment(context, found, payment)
        if row is not None:
            found.collected_paise += row.amount_paise
            found.refunded_paise += row.refunded_paise


async def _known(session: AsyncSession, ids: Iterable[str]) -> dict[str, Payment]:
    rows = await session.scalars(select(Payment).where(Payment.razorpay_id.in_(list(ids))))
    return {row.razorpay_id: row for row in rows}


def _agree(payment: RazorpayPayment, row: Payment) -> bool:
    return (payment.amount, payment.amount_refunded) == (row.amount_paise, row.refunded_paise) and row.status in _MOVED


async def _heal_payment(context: BillingContext, found: Report, payment: RazorpayPayment) -> Payment | None:
    """What it paid for is fetched, and its refunds; None: it is none of ours."""
    if not await _reach(context, payment):
        found.foreign += 1
        return None
    await refunds.refresh(context, payment.id)
    async with context.database.session() as session:
        row = (await _known(session, [payment.id])).get(payment.id)
    one = {"kind": "payment", "id": payment.id, "what": f"{payment.amount} paise, {payment.status}"}
    (found.healed if row is not None and _agree(payment, row) else found.unexplained).append(one)
    return row


async def _reach(context: BillingContext, payment: RazorpayPayment) -> bool:
    """Whether it paid for anything of ours, which then is up to date: a link, or its invoice's subscription."""
    if await charges.refresh_payment(context, payment):
        return True
    async with context.database.session() as session:
        row = await session.scalar(select(Payment).where(Payment.razorpay_id == payment.id))
    if payment.invoice_id is None:
        return row is not None
    invoice = await context.razorpay.fetch_invoice(payment.invoice_id)
    async with context.database.session() as session:
        owner = await session.scalar(select(Subscription).where(Subscription.razorpay_id == invoice.subscription_id))
    if owner is not None:
        await refresh(context, owner.tenant_id, owner.id)
    return owner is not None or row is not None


async def _refunds(context: BillingContext, found: Report) -> None:
    """Refunds of ours that are under way for longer than a webhook takes."""
    async with context.database.session() as session:
        query = select(Refund).where(
            Refund.state.in_(("submitting", "pending")), Refund.created_ms < now_ms() - _LAG_MS
        )
        rows = list(await session.scalars(query))
        found.compared["refunds"] = await session.scalar(select(func.count()).select_from(Refund)) or 0
    for row in rows:
        await refunds.refresh(context, row.payment_id)
        async with context.database.session() as session:
            after = await session.get_one(Refund, (row.tenant_id, row.id))
        if after.state != row.state:
            found.healed.append({"kind": "refund", "id": str(row.id), "what": f"{row.state} -> {after.state}"})
