"""Charges that are payment links: made once per reference for ever, cancelled before another attempt is made.

A `reference_id` that was used once is refused for ever (facts 2.10): so after a doubt the same call is made again,
and its refusal says that the first one had worked; then the link is looked up. A link counts as gone only when a fetch
says so. Every answer of Razorpay's is fetched outside of a transaction and applied in one.
"""

from billing.collection.allocation import take_link
from billing.collection.attempts import LOOK_EVERY_MS, PATIENCE_MS, fail, link_ends_ms
from billing.context import BillingContext, record_finding
from billing.models import Bill, Charge
from billing.razorpay import entities
from billing.razorpay.errors import RazorpayInDoubt, RazorpayRefused
from billing.razorpay.payer_names import payer
from core.clock import now_ms
from core.logs import get_logger

_NO = frozenset({400, 422})
"""A verdict on this link; another 4xx (a wrong key, a lost route) is one on the call."""

log = get_logger(__name__)


async def submit(context: BillingContext, charge: Charge, *, again: bool) -> None:
    """Makes the link, or finds the one that a lost call made. Raises RazorpayError, Unavailable."""
    async with context.database.session() as session:
        bill = await session.get_one(Bill, (charge.tenant_id, charge.bill_id))
    try:
        link = await context.razorpay.create_payment_link(
            amount_paise=charge.amount_paise,
            reference_id=charge.reference,
            description=f"Bill {bill.number or bill.id}",
            customer=payer(bill.customer),
            expire_by=link_ends_ms(context, now_ms()) // 1000,
            notes={"tenant_id": str(charge.tenant_id), "bill": str(bill.id), "charge": str(charge.id)},
        )
    except RazorpayRefused as refused:
        found = await _look_up(context, charge, refused, again=again)
        if found is None:
            return
        link = found
    if link.amount == charge.amount_paise:
        await take(context, charge, link)
    else:
        await fail(context, charge, f"{link.id} has our reference, and another amount")


async def withdraw(context: BillingContext, charge: Charge) -> None:
    """Cancels the link; what the fetch says afterwards counts: gone, or paid. Raises RazorpayError, Unavailable."""
    key = _known(charge)
    try:
        await context.razorpay.cancel_payment_link(key)
    except (RazorpayRefused, RazorpayInDoubt) as error:
        log.info("link_not_cancelled", link=key, error=str(error))
    await refresh(context, charge)


async def refresh(context: BillingContext, charge: Charge) -> None:
    """Applies what the link says now. Raises RazorpayError, Unavailable."""
    await take(context, charge, await context.razorpay.fetch_payment_link(_known(charge)))


async def take(context: BillingContext, charge: Charge, link: entities.PaymentLink) -> None:
    """Fetches the payments of a link of ours, and applies them. Raises RazorpayError, Unavailable."""
    ids = [str(one["payment_id"]) for one in link.payments or () if one.get("payment_id")]
    payments = [await context.razorpay.fetch_payment(key) for key in ids]
    async with context.tenant_transaction(charge.tenant_id) as session:
        await take_link(session, context, charge, link, payments, now_ms())
        state = (await session.get_one(Charge, (charge.tenant_id, charge.id))).state
    if state == "void" and link.status == "created":
        await context.razorpay.cancel_payment_link(link.id)  # an operator thought that it was never made


async def _look_up(
    context: BillingContext, charge: Charge, refused: RazorpayRefused, *, again: bool
) -> entities.PaymentLink | None:
    """The link of our reference, if that is why it was refused. None: it is looked for again, or has failed."""
    found = await context.razorpay.find_payment_links(charge.reference)
    if found:
        return found[0]
    since_ms = now_ms() - (charge.tried_ms or charge.created_ms)
    if charge.reference in refused.description:
        if since_ms > LOOK_EVERY_MS:
            async with context.tenant_transaction(charge.tenant_id) as session:
                key, detail = f"charge_lost:{charge.id}", {"charge_id": str(charge.id), "reference": charge.reference}
                await record_finding(session, key, "charge_lost", tenant_id=charge.tenant_id, **detail)
        log.warning("link_not_listed_yet", reference=charge.reference)
    elif refused.status not in _NO or (again and since_ms < PATIENCE_MS):
        log.warning("link_refused", reference=charge.reference, error=str(refused))
    else:
        await fail(context, charge, str(refused))
    return None


def _known(charge: Charge) -> str:
    if charge.razorpay_id is None:
        raise ValueError("this charge has no link yet")
    return charge.razorpay_id
