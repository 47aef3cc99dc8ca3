"""One attempt to collect a bill, from its row to Razorpay and back: `intended -> submitting -> submitted -> paid`.

Each step is stored before its call and its answer in a second transaction, so that whoever is killed between two of
them leaves a row that says where to go on. Razorpay away: raises RazorpayError; the duty
(`billing.collection.collection`) comes
again. What is done twice has one effect: links by their reference, add-ons by a look.
"""

from uuid import UUID

from sqlalchemy import or_, select

from billing.collection import addons as addon_charges
from billing.collection import payment_links as link_charges
from billing.collection.attempts import attend, read
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.models import Charge
from billing.razorpay.entities import Payment
from core.errors import Conflict, NotFound
from core.tenancy.audit import Actor, record


async def drive_one(context: BillingContext, tenant_id: UUID, charge_id: UUID) -> None:
    """The next steps of a charge. Raises RazorpayError, Unavailable."""
    charge, was = await attend(context, tenant_id, charge_id)
    kind = addon_charges if charge.instrument == "addon" else link_charges
    if was in {"intended", "submitting"}:
        await kind.submit(context, charge, again=was == "submitting")
        charge = await read(context, tenant_id, charge_id)
    elif was == "submitted" and charge.wanted_void is None:
        await kind.refresh(context, charge)
        charge = await read(context, tenant_id, charge_id)
    if charge.state == "submitted" and charge.wanted_void is not None:
        await kind.withdraw(context, charge)


async def refresh(context: BillingContext, tenant_id: UUID, charge_id: UUID) -> None:
    """Fetches the link or add-on of a charge and applies what it says. Raises RazorpayError, Unavailable, NotFound.

    A link whose making is in doubt is looked for by its reference; an add-on in doubt is the duty's business.
    """
    async with context.database.session() as session:
        charge = await session.get(Charge, (tenant_id, charge_id))
    if charge is None:
        raise NotFound("no such charge")
    if charge.razorpay_id is None:
        if charge.instrument == "payment_link" and charge.state == "submitting":
            for link in await context.razorpay.find_payment_links(charge.reference):
                await refresh_link(context, link.id, charge.reference)
        return
    kind = addon_charges if charge.instrument == "addon" else link_charges
    await kind.refresh(context, charge)


async def refresh_link(context: BillingContext, link_id: str, reference: str | None = None) -> bool:
    """The charge of a link (by its id, or our reference) catches up with it; False if it is none of ours.

    A link whose making was in doubt is adopted by it. Raises RazorpayError, Unavailable.
    """
    known = or_(Charge.razorpay_id == link_id, Charge.reference == (reference or ""))
    async with context.database.session() as session:
        found = (await session.scalars(select(Charge).where(known, Charge.instrument == "payment_link"))).all()
    charge = next((one for one in found if one.razorpay_id == link_id), found[0] if found else None)
    if charge is None:
        return False
    link = await context.razorpay.fetch_payment_link(link_id)
    if charge.razorpay_id not in (None, link.id) or link.reference_id != charge.reference:
        return False
    if link.amount == charge.amount_paise:
        await link_charges.take(context, charge, link)
    return True


async def refresh_payment(context: BillingContext, payment: Payment) -> bool:
    """The charge whose link this payment came on (its notes are the link's, or its order) catches up; False if none.

    So money on a link that was thought gone is found, too. Raises RazorpayError, Unavailable.
    """
    charge_id = _uuid(payment.notes.get("charge"))
    known = Charge.order_id == payment.order_id if charge_id is None else Charge.id == charge_id
    if charge_id is None and payment.order_id is None:
        return False
    async with context.database.session() as session:
        charge = (await session.scalars(select(Charge).where(known))).first()
    if charge is None or charge.instrument != "payment_link":
        return False
    await refresh(context, charge.tenant_id, charge.id)
    return True


async def retry(context: BillingContext, actor: Actor, charge_id: UUID, *, reason: str) -> Charge:
    """An operator lets a refused attempt go: the next one is made. Raises NotFound, Conflict, Unavailable."""
    async with context.database.session() as session:
        tenant_id = await session.scalar(select(Charge.tenant_id).where(Charge.id == charge_id))
    if tenant_id is None:
        raise NotFound("no such charge")
    async with context.tenant_transaction(tenant_id) as session:
        charge = await session.get_one(Charge, (tenant_id, charge_id))
        if charge.state != "failed":
            raise Conflict(f"only a failed charge is tried again: it is {charge.state}")
        charge.state = "void"
        record(
            session,
            actor,
            "charge.retry",
            tenant_id=tenant_id,
            target=f"charge:{charge_id}",
            before={"state": "failed", "error": charge.error},
            after={"state": "void", "reason": reason},
        )
        enqueue_after_commit(session, COLLECT)
    return charge


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
