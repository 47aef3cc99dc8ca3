"""Charges that are add-ons on a subscription's next invoice: for international cards, where the operator wants them.

Nothing makes an add-on unique at Razorpay: our reference is in its name. So after a doubt it is looked for, with
patience for a lagging list, and only then made again; should a second one turn up, it is deleted. Once an invoice
carries it there is no way back; before that it is gone only when it is deleted and a fetch says so. What it brought is
applied with its invoice (`billing.collection.allocation.take_invoice`). Razorpay away: raises, and the duty comes
again.
"""

from billing.access.projection import project
from billing.collection.allocation import take_invoice
from billing.collection.attempts import PATIENCE_MS, unsent, void
from billing.context import BillingContext, record_finding
from billing.models import Bill, Charge, Subscription
from billing.razorpay import entities
from billing.razorpay.errors import RazorpayError, RazorpayInDoubt, RazorpayRefused
from core.clock import now_ms
from core.logs import get_logger

_GONE = frozenset({400, 404})
_DEAD = frozenset({"cancelled", "expired", "deleted"})
_ENDED = frozenset({"cancelled", "completed", "expired"})
_LOOK_BACK_S = 3600

log = get_logger(__name__)


async def submit(context: BillingContext, charge: Charge, *, again: bool) -> None:
    """Makes the add-on, or finds the one that a lost call made. Raises RazorpayError, Unavailable."""
    if again and not await _may_send_again(context, charge):
        return
    async with context.database.session() as session:
        bill = await session.get_one(Bill, (charge.tenant_id, charge.bill_id))
        on = await session.get_one(Subscription, (charge.tenant_id, charge.subscription_id))
    name = f"Usage {bill.number or ''} {charge.reference}".replace("  ", " ")
    try:
        made = await context.razorpay.create_addon(
            str(on.razorpay_id), name=name, amount_paise=charge.amount_paise, description=f"Bill {bill.number}"
        )
    except RazorpayRefused as refused:
        if refused.status not in _GONE:
            await unsent(context, charge, str(refused))
            raise
        await void(context, charge, str(refused))
    except RazorpayInDoubt:
        raise
    except RazorpayError as error:
        await unsent(context, charge, str(error))
        raise
    else:
        await _adopt(context, charge, made)


async def withdraw(context: BillingContext, charge: Charge) -> None:
    """Deletes it, unless an invoice carries it by now. Raises RazorpayError, Unavailable."""
    try:
        await context.razorpay.delete_addon(str(charge.razorpay_id))
    except (RazorpayRefused, RazorpayInDoubt) as error:
        log.info("addon_not_deleted", addon=charge.razorpay_id, error=str(error))
    addon = await _fetch(context, charge)
    if addon is None:
        await void(context, charge, charge.wanted_void or "its subscription ended")
    else:
        await _see(context, charge, addon)


async def refresh(context: BillingContext, charge: Charge) -> None:
    """Applies what the add-on and its invoice say now. Raises RazorpayError, Unavailable."""
    if charge.razorpay_invoice_id is None:
        addon = await _fetch(context, charge)
        if addon is None:
            await void(context, charge, "it was deleted")
            return
        await _see(context, charge, addon)
        if addon.invoice_id is None:
            if await _has_ended(context, charge):
                await withdraw(context, charge)
            else:
                await _drop_twins(context, charge, addon.id)
            return
        charge.razorpay_invoice_id = addon.invoice_id
    await _follow_invoice(context, charge, charge.razorpay_invoice_id)


async def _follow_invoice(context: BillingContext, charge: Charge, invoice_id: str) -> None:
    invoice = await context.razorpay.fetch_invoice(invoice_id)
    if invoice.status == "paid" and invoice.payment_id is not None:
        payment = await context.razorpay.fetch_payment(invoice.payment_id)
        async with context.tenant_transaction(charge.tenant_id) as session:
            on = await session.get_one(Subscription, (charge.tenant_id, charge.subscription_id))
            await take_invoice(session, context, on, invoice, payment, now_ms())
            await project(session, context.zone, charge.tenant_id, now_ms())
    elif invoice.status in _DEAD:
        await void(context, charge, f"its invoice is {invoice.status}")


async def _may_send_again(context: BillingContext, charge: Charge) -> bool:
    """Whether the lost call certainly had no effect, and the add-on is still wanted; adopts what it made if it had."""
    tried_ms = charge.tried_ms or charge.created_ms
    found = await _ours(context, charge, tried_ms)
    if found:
        for twin in found[1:]:
            await _delete_twin(context, charge, twin)
        await _adopt(context, charge, found[0])
        return False
    if now_ms() < tried_ms + PATIENCE_MS:
        return False
    if charge.wanted_void is not None:
        await void(context, charge, charge.wanted_void)
        return False
    async with context.tenant_transaction(charge.tenant_id) as session:
        fresh = await session.get_one(Charge, (charge.tenant_id, charge.id))
        if fresh.state != "submitting" or fresh.tried_ms != charge.tried_ms:
            return False  # another worker is at it
        fresh.tried_ms = charge.tried_ms = now_ms()
    return True


async def _ours(context: BillingContext, charge: Charge, since_ms: int) -> list[entities.Addon]:
    """The add-ons that bear our reference, oldest first."""
    listed = await context.razorpay.list_addons(since=since_ms // 1000 - _LOOK_BACK_S)
    words = (one for one in listed if charge.reference in str(one.item.get("name") or "").split())
    return sorted(words, key=lambda one: (one.created_at, one.id))


async def _adopt(context: BillingContext, charge: Charge, addon: entities.Addon) -> None:
    """Razorpay has it. What rides on a later invoice is not overdue before that invoice is."""
    async with context.tenant_transaction(charge.tenant_id) as session:
        fresh = await session.get_one(Charge, (charge.tenant_id, charge.id))
        if fresh.state not in {"intended", "submitting"}:
            return
        bill = await session.get_one(Bill, (charge.tenant_id, charge.bill_id))
        on = await session.get_one(Subscription, (charge.tenant_id, charge.subscription_id))
        fresh.state, fresh.razorpay_id, fresh.error = "submitted", addon.id, None
        fresh.razorpay_invoice_id, fresh.checked_ms = addon.invoice_id, now_ms()
        if bill.due_ms is not None and on.current_end_ms is not None:
            bill.due_ms = max(bill.due_ms, on.current_end_ms + context.rules.pay_within_ms)
            await project(session, context.zone, charge.tenant_id, now_ms())


async def _fetch(context: BillingContext, charge: Charge) -> entities.Addon | None:
    """The add-on; None once it is deleted, which Razorpay answers like an id it never had."""
    try:
        return await context.razorpay.fetch_addon(str(charge.razorpay_id))
    except RazorpayRefused as refused:
        if refused.status not in _GONE:
            raise
        return None


async def _see(context: BillingContext, charge: Charge, addon: entities.Addon) -> None:
    async with context.tenant_transaction(charge.tenant_id) as session:
        fresh = await session.get_one(Charge, (charge.tenant_id, charge.id))
        fresh.checked_ms = now_ms()
        if addon.invoice_id is not None:
            fresh.razorpay_invoice_id, fresh.wanted_void = addon.invoice_id, None


async def _has_ended(context: BillingContext, charge: Charge) -> bool:
    """Whether the subscription makes no next invoice that could carry it."""
    async with context.database.session() as session:
        on = await session.get_one(Subscription, (charge.tenant_id, charge.subscription_id))
    return on.status in _ENDED or on.cancel_state is not None


async def _drop_twins(context: BillingContext, charge: Charge, kept: str) -> None:
    """A call that seemed to have had no effect may show one later than our patience."""
    for twin in await _ours(context, charge, charge.created_ms):
        if twin.id != kept:
            await _delete_twin(context, charge, twin)


async def _delete_twin(context: BillingContext, charge: Charge, twin: entities.Addon) -> None:
    try:
        await context.razorpay.delete_addon(twin.id)
    except RazorpayRefused as refused:
        async with context.tenant_transaction(charge.tenant_id) as session:
            detail = {"addon_id": twin.id, "charge_id": str(charge.id), "error": str(refused)}
            await record_finding(session, f"extra_addon:{twin.id}", "extra_addon", tenant_id=charge.tenant_id, **detail)
