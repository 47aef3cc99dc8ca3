"""A bill in sentences: each line as quantity, allowance and rate, then tax, payments, credit notes, and what is due."""

from typing import Any
from uuid import UUID

from api.schemas.billing.bills import BillExplanation, BillHistory
from api.services.billing.bills import find_history
from api.services.context import ServiceContext
from billing.gst.rupees import rupees
from core.figures import grouped

_UNITS_PER_RATE = 1_000_000
_BASIS_POINTS_PER_PERCENT = 100


async def explain_bill(context: ServiceContext, bill_id: UUID) -> BillExplanation:
    """Explains a document to its tenant. Raises NotFound."""
    history = await find_history(context, bill_id)
    return BillExplanation.of(history, _sentences(history))


def _sentences(history: BillHistory) -> list[str]:
    """The steps from the usage to the amount due. Each amount is one of the bill's own, never calculated anew."""
    bill = history.bill
    steps = [f"{bill.kind} {bill.number or 'without number'} for period {bill.period}, plan {bill.plan}: {bill.state}."]
    if history.refers_to is not None:
        steps.append(f"It refers to {history.refers_to.number}, of {history.refers_to.total}.")
    steps += [_line(line) for line in bill.lines]
    steps.append(f"Taxable value: {rupees(bill.taxable_paise)}.")
    steps += [_tax(part) for part in bill.tax]
    steps.append(f"Total: {bill.total}.")
    for payment in history.payments:
        steps.append(f"Paid {rupees(payment.applied_paise)}{f' by {payment.method}' if payment.method else ''}.")
    steps += [f"Credit note {note.number}: {note.total}." for note in history.credit_notes]
    if bill.carried_paise:
        steps.append(f"Carried to or from another bill: {rupees(bill.carried_paise)}.")
    due = f"Due: {rupees(bill.due_paise)}"
    return [*steps, f"{due} by {bill.due_at}." if bill.due_paise > 0 and bill.due_at else f"{due}."]


def _line(line: dict[str, Any]) -> str:
    if line["kind"] != "meter":
        return f"{line['text']}: {rupees(line['amount_paise'])}."
    earlier = f", of which {rupees(line['earlier_paise'])} was billed earlier" if line["earlier_paise"] else ""
    return (
        f"{line['meter']}: {grouped(line['quantity'])} used, {grouped(line['allowance'])} included,"
        f" {grouped(line['excess'])} beyond it at {rupees(line['rate_paise'])} per {grouped(_UNITS_PER_RATE)}:"
        f" {rupees(line['whole_paise'])}{earlier}; on this bill {rupees(line['amount_paise'])}."
    )


def _tax(part: dict[str, Any]) -> str:
    whole, hundredths = divmod(part["rate_bp"], _BASIS_POINTS_PER_PERCENT)
    rate = f"{whole}.{hundredths:02d}".rstrip("0").rstrip(".") if hundredths else str(whole)
    return f"{str(part['component']).upper()} at {rate} %: {rupees(part['tax_paise'])}."
