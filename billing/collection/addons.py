"""Charges that are add-ons on a subscription's next invoice: for international cards, if the operator enables them.

Nothing makes an add-on unique at Razorpay, so its name contains our reference. After a doubt it is looked for, as long
as a list may lag, and only then created again; a duplicate that turns up later is deleted. An add-on on an invoice
can't be deleted; before that it counts as gone only when a fetch after its deletion says so. Its money is applied with
its invoice (`billing.collection.allocation.apply_invoice_payment`). Razorpay down: raises RazorpayError.
"""

from functools import partial

from billing.access.projection import project
from billing.collection.allocation import apply_invoice_payment
from billing.collection.charges import LIST_LAG_MS, void_charge
from billing.context import BillingContext
from billing.findings import record_finding, resolve_finding
from billing.models import Bill, Charge, Subscription
from billing.models.states import TERMINAL, UNANSWERED, ChargeState
from billing.razorpay.entities import Addon
from billing.razorpay.errors import RazorpayInDoubt, RazorpayRefused
from billing.writes import release, submit
from core.clock import now_ms
from core.logs import get_logger

_DEAD_INVOICE = frozenset({"cancelled", "expired", "deleted"})
_LOOK_BACK_S = 3600

log = get_logger(__name__)


async def submit_addon(context: BillingContext, charge: Charge, *, again: bool) -> None:
    """Creates the add-on, or finds the one that an unanswered call created. Raises RazorpayError, Unavailable."""
    if again and not await _may_send_again(context, charge):
        return
    bill = await context.read(Bill, charge.tenant_id, charge.bill_id)
    carrier = await context.read(Subscription, charge.tenant_id, charge.subscription_id)
    await submit(
        partial(
            context.razorpay.create_addon,
            str(carrier.razorpay_id),
            name=f"Usage {bill.number or ''} {charge.reference}".replace("  ", " "),
            amount_paise=charge.amount_paise,
            description=f"Bill {bill.number}",
        ),
        apply=partial(_adopt, context, charge),
        on_refused=partial(_refuse, context, charge),
        on_error=partial(release, context, charge),
    )


async def delete_addon(context: BillingContext, charge: Charge) -> None:
    """Deletes the add-on, unless an invoice carries it by now. Raises RazorpayError, Unavailable."""
    try:
        await context.razorpay.delete_addon(str(charge.razorpay_id))
    except (RazorpayRefused, RazorpayInDoubt) as error:
        log.info("addon_not_deleted", addon=charge.razorpay_id, error=str(error))
    addon = await _fetch(context, charge)
    if addon is None:
        await void_charge(context, charge, charge.wanted_void or "its subscription ended")
    else:
        await _store_seen(context, charge, addon)


async def refresh_addon(context: BillingContext, charge: Charge) -> None:
    """Fetches the add-on and its invoice, and applies them. Raises RazorpayError, Unavailable."""
    if charge.razorpay_invoice_id is None:
        addon = await _fetch(context, charge)
        if addon is None:
            await void_charge(context, charge, "it was deleted")
            return
        await _store_seen(context, charge, addon)
        if addon.invoice_id is None:
            carrier = await context.read(Subscription, charge.tenant_id, charge.subscription_id)
            if carrier.status in TERMINAL or carrier.cancel_state is not None:  # no further invoice can carry it
                await delete_addon(context, charge)
            else:
                await _delete_duplicates(context, charge, addon.id)
            return
        charge.razorpay_invoice_id = addon.invoice_id
    await _refresh_invoice(context, charge, charge.razorpay_invoice_id)


async def _refuse(context: BillingContext, charge: Charge, refused: RazorpayRefused) -> None:
    if not refused.is_unknown_id:
        await release(context, charge, refused)
        raise refused
    await void_charge(context, charge, str(refused))


async def _refresh_invoice(context: BillingContext, charge: Charge, invoice_id: str) -> None:
    invoice = await context.razorpay.fetch_invoice(invoice_id)
    if invoice.status == "paid" and invoice.payment_id is not None:
        payment = await context.razorpay.fetch_payment(invoice.payment_id)
        async with context.tenant_transaction(charge.tenant_id) as session:
            carrier = await session.get_one(Subscription, (charge.tenant_id, charge.subscription_id))
            await apply_invoice_payment(session, context, carrier, invoice, payment, now_ms())
            await project(session, context.zone, charge.tenant_id, now_ms())
    elif invoice.status in _DEAD_INVOICE:
        await void_charge(context, charge, f"its invoice is {invoice.status}")


async def _may_send_again(context: BillingContext, charge: Charge) -> bool:
    """Whether the unanswered call had no effect and the add-on is still wanted. Adopts an add-on that it created."""
    tried_ms = charge.tried_ms or charge.created_ms
    found = await _find_ours(context, charge, tried_ms)
    if found:
        for duplicate in found[1:]:
            await _delete_duplicate(context, charge, duplicate)
        await _adopt(context, charge, found[0])
        return False
    if now_ms() < tried_ms + LIST_LAG_MS:
        return False
    if charge.wanted_void is not None:
        await void_charge(context, charge, charge.wanted_void)
        return False
    async with context.locked(charge) as (_, fresh):
        if fresh.state != ChargeState.SUBMITTING or fresh.tried_ms != charge.tried_ms:
            return False  # another worker took it over
        fresh.tried_ms = charge.tried_ms = now_ms()
    return True


async def _find_ours(context: BillingContext, charge: Charge, since_ms: int) -> list[Addon]:
    """The add-ons whose name contains our reference, oldest first."""
    listed = await context.razorpay.list_addons(since=since_ms // 1000 - _LOOK_BACK_S)
    ours = (one for one in listed if charge.reference in str(one.item.get("name") or "").split())
    return sorted(ours, key=lambda one: (one.created_at, one.id))


async def _adopt(context: BillingContext, charge: Charge, addon: Addon) -> None:
    """Stores the add-on's id. The bill is not due before the invoice that carries the add-on."""
    async with context.locked(charge) as (session, fresh):
        if fresh.state not in UNANSWERED:
            return
        bill = await session.get_one(Bill, (charge.tenant_id, charge.bill_id))
        carrier = await session.get_one(Subscription, (charge.tenant_id, charge.subscription_id))
        fresh.state, fresh.razorpay_id, fresh.error = ChargeState.SUBMITTED, addon.id, None
        fresh.razorpay_invoice_id, fresh.checked_ms = addon.invoice_id, now_ms()
        if bill.due_ms is not None and carrier.current_end_ms is not None:
            bill.due_ms = max(bill.due_ms, carrier.current_end_ms + context.rules.pay_within_ms)
            await project(session, context.zone, charge.tenant_id, now_ms())


async def _fetch(context: BillingContext, charge: Charge) -> Addon | None:
    """The add-on. None once it is deleted: Razorpay answers for it as for an unknown id."""
    try:
        return await context.razorpay.fetch_addon(str(charge.razorpay_id))
    except RazorpayRefused as refused:
        if not refused.is_unknown_id:
            raise
        return None


async def _store_seen(context: BillingContext, charge: Charge, addon: Addon) -> None:
    async with context.locked(charge) as (_, fresh):
        fresh.checked_ms = now_ms()
        if addon.invoice_id is not None:
            fresh.razorpay_invoice_id, fresh.wanted_void = addon.invoice_id, None


async def _delete_duplicates(context: BillingContext, charge: Charge, kept: str) -> None:
    """Deletes add-ons of calls that showed their effect only after LIST_LAG_MS."""
    for duplicate in await _find_ours(context, charge, charge.created_ms):
        if duplicate.id != kept:
            await _delete_duplicate(context, charge, duplicate)


async def _delete_duplicate(context: BillingContext, charge: Charge, duplicate: Addon) -> None:
    key = f"extra_addon:{duplicate.id}"
    try:
        await context.razorpay.delete_addon(duplicate.id)
        async with context.database.session() as session:
            await resolve_finding(session, key, now_ms())
    except RazorpayRefused as refused:
        async with context.tenant_transaction(charge.tenant_id) as session:
            detail = {"addon_id": duplicate.id, "charge_id": str(charge.id), "error": str(refused)}
            await record_finding(session, key, "extra_addon", tenant_id=charge.tenant_id, **detail)
