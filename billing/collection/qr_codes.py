"""Charges that are UPI QR codes, each for one payment of a top-up.

Nothing makes a code unique. After a doubt the code is looked for by its notes, as long as Razorpay's list may lag, and
only then another is created; should both be paid, the bill takes one payment and the other is refunded. A code counts
as gone only when a fetch says so, and money that comes later is applied all the same. An account that is refused QR
codes gets a payment link instead. Razorpay down: raises RazorpayError.
"""

from functools import partial
from uuid import UUID

from billing.collection.allocation import apply_qr_code_payments
from billing.collection.charges import LIST_LAG_MS, void_charge
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.models import Bill, Charge
from billing.models.states import CAPTURED, LIVE, ChargeState, Instrument
from billing.razorpay.entities import QrCode
from billing.razorpay.errors import RazorpayInDoubt, RazorpayRefused, RazorpayUnavailable
from billing.razorpay.qr_codes import LIFETIME_S
from billing.writes import release, submit, take_over
from core.clock import now_ms
from core.logs import get_logger

_SKEW_S = 3_600
"""How far Razorpay's clock and ours may differ when a code is looked for by its time."""

log = get_logger(__name__)


async def submit_qr_code(context: BillingContext, charge: Charge, *, again: bool) -> None:
    """Creates the code, or finds the one that an unanswered call created. Raises RazorpayError, Unavailable."""
    if again:
        found = await find_qr_codes(context, charge)
        for code in found:  # the first becomes the charge's own; another only brings its money, or is closed
            await apply_qr_code(context, charge, code)
        if found:
            return
        if now_ms() < (charge.tried_ms or charge.created_ms) + LIST_LAG_MS:
            return
        if charge.wanted_void is not None:
            await void_charge(context, charge, charge.wanted_void)
            return
        if not await take_over(context, charge):
            return
    bill = await context.read(Bill, charge.tenant_id, charge.bill_id)
    await submit(
        partial(
            context.razorpay.create_qr_code,
            name=str(bill.supplier.get("legal_name") or "Top-up")[:50],
            amount_paise=charge.amount_paise,
            description=f"Bill {bill.number or bill.id}",
            close_by=now_ms() // 1000 + LIFETIME_S,
            notes={"tenant_id": str(charge.tenant_id), "bill": str(bill.id), "charge": str(charge.id)},
        ),
        apply=partial(apply_qr_code, context, charge),
        on_refused=partial(_use_link, context, charge),
        on_error=partial(release, context, charge),
    )


async def find_qr_codes(context: BillingContext, charge: Charge) -> list[QrCode]:
    """The codes of a charge, newest first, which its calls may have created. Raises RazorpayError.

    The time is bounded, so that the account's other codes do not become too many to list while the charge waits.
    """
    since_s = charge.created_ms // 1000 - _SKEW_S
    until_s = ((charge.tried_ms or charge.created_ms) + LIST_LAG_MS) // 1000 + _SKEW_S
    return await context.razorpay.find_qr_codes({"charge": str(charge.id)}, since=since_s, until=until_s)


async def close_qr_code(context: BillingContext, charge: Charge) -> None:
    """Closes the code, then applies what a fetch says: gone, or paid. Raises RazorpayError, Unavailable."""
    await _close(context, str(charge.razorpay_id))
    await refresh_qr_code(context, charge)


async def refresh_qr_code(context: BillingContext, charge: Charge) -> None:
    """Fetches the code and applies it. Raises RazorpayError, Unavailable."""
    await apply_qr_code(context, charge, await context.razorpay.fetch_qr_code(str(charge.razorpay_id)))


async def apply_qr_code(context: BillingContext, charge: Charge, code: QrCode) -> None:
    """Fetches the payments of a code and applies them. Raises RazorpayError, Unavailable."""
    payments = await context.razorpay.payments_of_qr_code(code.id)
    if code.payments_count_received > sum(payment.status in CAPTURED for payment in payments):
        raise RazorpayUnavailable(f"the payments of {code.id} are not listed yet")  # the code would look unpaid
    async with context.tenant_transaction(charge.tenant_id) as session:
        await apply_qr_code_payments(session, context, charge, code, payments, now_ms())
        after = await session.get_one(Charge, (charge.tenant_id, charge.id))
    if code.status == "active" and (after.state not in LIVE or after.razorpay_id != code.id):
        await _close(context, code.id)  # the bill needs no payment any more, or has another code


def charge_named(code: QrCode) -> UUID | None:
    """The charge that a code's notes name."""
    try:
        return UUID(code.notes.get("charge", ""))
    except ValueError:
        return None


async def _close(context: BillingContext, qr_code_id: str) -> None:
    try:
        await context.razorpay.close_qr_code(qr_code_id)
    except (RazorpayRefused, RazorpayInDoubt) as error:
        log.info("qr_code_not_closed", qr_code=qr_code_id, error=str(error))


async def _use_link(context: BillingContext, charge: Charge, refused: RazorpayRefused) -> None:
    """Has a payment link collect the bill, since codes are refused. A refusal of our key isn't the charge's fault."""
    if not refused.is_invalid_request:
        await release(context, charge, refused)
        raise refused
    async with context.locked(charge) as (session, fresh):
        if fresh.state == ChargeState.SUBMITTING and fresh.tried_ms == charge.tried_ms:
            fresh.instrument, fresh.state = Instrument.PAYMENT_LINK, ChargeState.INTENDED
            enqueue_after_commit(session, COLLECT)
    log.warning("qr_code_refused", charge=str(charge.id), error=str(refused))
