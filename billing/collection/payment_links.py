"""Charges that are payment links, each created once per reference.

Razorpay refuses a `reference_id` that was ever used. So after a doubt the same call is repeated, and its
refusal shows that the first one worked; then the link is looked up. A link counts as gone only when a fetch says so.
Answers are fetched outside of transactions and applied in one. Razorpay down: raises RazorpayError.
"""

from functools import partial

from billing.collection.allocation import apply_link_payments
from billing.collection.charges import LIST_LAG_MS, POLL_EVERY_MS, fail_charge, link_expiry_ms
from billing.context import BillingContext
from billing.findings import record_finding
from billing.models import Bill, Charge
from billing.models.states import ChargeState
from billing.razorpay.entities import PaymentLink
from billing.razorpay.errors import RazorpayInDoubt, RazorpayRefused
from billing.razorpay.payer_names import payer
from billing.writes import submit
from core.clock import now_ms
from core.logs import get_logger

log = get_logger(__name__)


async def submit_link(context: BillingContext, charge: Charge, *, again: bool) -> None:
    """Creates the link, or finds the one that an unanswered call created. Raises RazorpayError, Unavailable."""
    bill = await context.read(Bill, charge.tenant_id, charge.bill_id)
    await submit(
        partial(
            context.razorpay.create_payment_link,
            amount_paise=charge.amount_paise,
            reference_id=charge.reference,
            description=f"Bill {bill.number or bill.id}",
            customer=payer(bill.customer),
            expire_by=link_expiry_ms(context, now_ms()) // 1000,
            notes={"tenant_id": str(charge.tenant_id), "bill": str(bill.id), "charge": str(charge.id)},
        ),
        apply=partial(_apply_created, context, charge),
        on_refused=partial(_find_refused, context, charge, again=again),
    )


async def cancel_link(context: BillingContext, charge: Charge) -> None:
    """Cancels the link, then applies what a fetch says: gone, or paid. Raises RazorpayError, Unavailable."""
    try:
        await context.razorpay.cancel_payment_link(str(charge.razorpay_id))
    except (RazorpayRefused, RazorpayInDoubt) as error:
        log.info("link_not_cancelled", link=charge.razorpay_id, error=str(error))
    await refresh_link(context, charge)


async def refresh_link(context: BillingContext, charge: Charge) -> None:
    """Fetches the link and applies it. Raises RazorpayError, Unavailable."""
    await apply_link(context, charge, await context.razorpay.fetch_payment_link(str(charge.razorpay_id)))


async def apply_link(context: BillingContext, charge: Charge, link: PaymentLink) -> None:
    """Fetches the payments of a link and applies them. Raises RazorpayError, Unavailable."""
    ids = [str(one["payment_id"]) for one in link.payments or () if one.get("payment_id")]
    payments = [await context.razorpay.fetch_payment(key) for key in ids]
    async with context.tenant_transaction(charge.tenant_id) as session:
        await apply_link_payments(session, context, charge, link, payments, now_ms())
        state = (await session.get_one(Charge, (charge.tenant_id, charge.id))).state
    if state == ChargeState.VOID and link.status == "created":
        # An operator retried this charge in the belief that the link was never created.
        await context.razorpay.cancel_payment_link(link.id)


async def _apply_created(context: BillingContext, charge: Charge, link: PaymentLink) -> None:
    if link.amount == charge.amount_paise:
        await apply_link(context, charge, link)
    else:
        await fail_charge(context, charge, f"{link.id} has our reference and another amount")


async def _find_refused(
    context: BillingContext, charge: Charge, refused: RazorpayRefused, *, again: bool
) -> PaymentLink | None:
    """The link of our reference, if its existence is why the call was refused. None: retried later, or failed."""
    found = await context.razorpay.find_payment_links(charge.reference)
    if found:
        return found[0]
    since_ms = now_ms() - (charge.tried_ms or charge.created_ms)
    if charge.reference in refused.description:
        if since_ms > POLL_EVERY_MS:
            async with context.tenant_transaction(charge.tenant_id) as session:
                key, detail = f"charge_lost:{charge.id}", {"charge_id": str(charge.id), "reference": charge.reference}
                await record_finding(session, key, "charge_lost", tenant_id=charge.tenant_id, **detail)
        log.warning("link_not_listed_yet", reference=charge.reference)
    elif not refused.is_invalid_request or (again and since_ms < LIST_LAG_MS):
        log.warning("link_refused", reference=charge.reference, error=str(refused))
    else:
        await fail_charge(context, charge, str(refused))
    return None
