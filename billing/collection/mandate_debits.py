"""Charges that are debits of the tenant's mandate: an order with our reference, then a recurring payment for it.

An order collects nothing by itself, and Razorpay gives the same one for the same receipt. Nothing makes the payment
unique: after a doubt it is looked for among the order's payments, as long as they may lag, and only then made again.
A debit can't be called back, and goes on even when its token is deleted. So a charge ends only when a fetch shows that
every attempt failed; then the bill's next charge is a payment link. Money that comes after all is applied to the bill,
and what is too much is refunded. Razorpay down: raises RazorpayError.
"""

from functools import partial

from billing.collection.allocation import apply_debit
from billing.collection.charges import LIST_LAG_MS, is_stuck, void_charge
from billing.context import BillingContext
from billing.findings import record_finding
from billing.mandates.mandates import may_debit
from billing.mandates.sync import refresh_mandate
from billing.models import Bill, Charge, Mandate
from billing.models.states import UNANSWERED, ChargeState
from billing.razorpay.entities import Order, Payment
from billing.razorpay.errors import RazorpayError, RazorpayInDoubt, RazorpayRefused
from billing.razorpay.payer_names import payer
from billing.writes import release, submit, take_over
from core.clock import now_ms
from core.logs import get_logger

log = get_logger(__name__)


async def submit_debit(context: BillingContext, charge: Charge, *, again: bool) -> None:
    """Makes the debit, or finds the one that an unanswered call made. Raises RazorpayError, Unavailable."""
    if charge.order_id is not None and await _found_payment(context, charge):
        return
    if charge.order_id is not None and now_ms() < (charge.tried_ms or 0) + LIST_LAG_MS:
        return
    mandate = await context.read(Mandate, charge.tenant_id, charge.mandate_id)
    if charge.wanted_void is not None or not may_debit(mandate, charge.amount_paise, now_ms()):
        await void_charge(context, charge, charge.wanted_void or "the mandate has ended")
    elif charge.order_id is None:
        await _create_order(context, charge, mandate, again=again)
    elif await take_over(context, charge):
        await _debit(context, charge, mandate)


async def refresh_debit(context: BillingContext, charge: Charge) -> None:
    """Fetches the payments of the debit's order and applies them. Raises RazorpayError, Unavailable."""
    if charge.order_id is None:
        return
    payments = await _payments(context, charge)
    async with context.tenant_transaction(charge.tenant_id) as session:
        await apply_debit(session, context, charge, payments, now_ms())
        after = await session.get_one(Charge, (charge.tenant_id, charge.id))
        key = f"debit_pending:{charge.id}"
        if is_stuck(after, now_ms()):
            detail = {"charge_id": str(charge.id), "payment_id": after.razorpay_id}
            await record_finding(session, key, "debit_pending", tenant_id=charge.tenant_id, **detail)
    if after.mandate_id is not None and after.state != ChargeState.PAID:
        await refresh_mandate(context, charge.tenant_id, after.mandate_id)  # the customer may have ended or paused it


async def _found_payment(context: BillingContext, charge: Charge) -> bool:
    """Whether the order has a payment, which is applied."""
    payments = await _payments(context, charge)
    if not payments:
        return False
    async with context.tenant_transaction(charge.tenant_id) as session:
        await apply_debit(session, context, charge, payments, now_ms())
    return True


async def _payments(context: BillingContext, charge: Charge) -> list[Payment]:
    """Every attempt at the debit, oldest first. The known one is fetched, since the list may lag."""
    found = {one.id: one for one in await context.razorpay.payments_of_order(str(charge.order_id))}
    if charge.razorpay_id is not None:
        found[charge.razorpay_id] = await context.razorpay.fetch_payment(charge.razorpay_id)
    return sorted(found.values(), key=lambda one: (one.created_at, one.id))


async def _create_order(context: BillingContext, charge: Charge, mandate: Mandate, *, again: bool) -> None:
    """Creates the order, or finds it, and makes the debit unless another worker does."""
    await submit(
        partial(
            context.razorpay.create_order,
            amount_paise=charge.amount_paise,
            receipt=charge.reference,
            notes=_notes(charge),
        ),
        apply=partial(_adopt_order, context, charge, mandate),
        on_refused=partial(_refuse_order, context, charge),
        on_error=partial(release, context, charge),
        find=partial(_find_order, context, charge) if again else None,
    )


async def _find_order(context: BillingContext, charge: Charge) -> Order | None:
    return next(iter(await context.razorpay.find_orders(charge.reference)), None)


async def _refuse_order(context: BillingContext, charge: Charge, refused: RazorpayRefused) -> Order | None:
    """The order of our reference, if its existence is why the call was refused. None: the charge is void."""
    found = await _find_order(context, charge)
    if found is None:
        await _give_up(context, charge, refused)
    return found


async def _adopt_order(context: BillingContext, charge: Charge, mandate: Mandate, order: Order) -> None:
    if order.amount != charge.amount_paise:
        await void_charge(context, charge, f"{order.id} has our reference and another amount")
        return
    async with context.locked(charge) as (_, fresh):
        if fresh.state != ChargeState.SUBMITTING or fresh.order_id is not None:
            return  # another worker took it over
        fresh.order_id = charge.order_id = order.id
        fresh.tried_ms = charge.tried_ms = now_ms()
    await _debit(context, charge, mandate)


async def _debit(context: BillingContext, charge: Charge, mandate: Mandate) -> None:
    bill = await context.read(Bill, charge.tenant_id, charge.bill_id)
    await submit(
        partial(
            context.razorpay.debit_token,
            order_id=str(charge.order_id),
            amount_paise=charge.amount_paise,
            customer_id=str(mandate.customer_id),
            token_id=str(mandate.token_id),
            payer=payer(bill.customer | {"contact": mandate.contact}),
            description=f"Bill {bill.number or bill.id}",
            notes=_notes(charge),
        ),
        apply=partial(_adopt, context, charge),
        on_refused=partial(_refuse, context, charge),
        on_error=partial(_allow_again, context, charge),
    )


async def _adopt(context: BillingContext, charge: Charge, payment_id: str) -> None:
    """Stores the payment's id. Its outcome comes a day later."""
    async with context.locked(charge) as (_, fresh):
        if fresh.state in UNANSWERED:
            fresh.state, fresh.razorpay_id = ChargeState.SUBMITTED, payment_id
            fresh.error, fresh.checked_ms = None, now_ms()


async def _refuse(context: BillingContext, charge: Charge, refused: RazorpayRefused) -> None:
    """Voids the charge, unless an earlier call had worked, which is why this one is refused."""
    if not await _found_payment(context, charge):
        await _give_up(context, charge, refused)


async def _give_up(context: BillingContext, charge: Charge, refused: RazorpayRefused) -> None:
    """Voids a refused charge, so that a payment link follows. A refusal of our key isn't the charge's fault."""
    if not refused.is_invalid_request and not refused.is_unknown_id:
        await _allow_again(context, charge, refused)
        raise refused
    await void_charge(context, charge, str(refused))
    try:
        mandate = await context.read(Mandate, charge.tenant_id, charge.mandate_id)
        await refresh_mandate(context, charge.tenant_id, mandate.id)
    except RazorpayError as error:
        log.info("mandate_not_refreshed", mandate=str(charge.mandate_id), error=str(error))


async def _allow_again(context: BillingContext, charge: Charge, error: RazorpayError) -> None:
    """A call that had no effect may be made again at once. After a doubt the order's payments decide, once listed."""
    if isinstance(error, RazorpayInDoubt):
        return
    async with context.locked(charge) as (_, fresh):
        if fresh.state == ChargeState.SUBMITTING and fresh.tried_ms == charge.tried_ms:
            fresh.tried_ms, fresh.error = 0, str(error)[:500]


def _notes(charge: Charge) -> dict[str, str]:
    return {"tenant_id": str(charge.tenant_id), "bill": str(charge.bill_id), "charge": str(charge.id)}
