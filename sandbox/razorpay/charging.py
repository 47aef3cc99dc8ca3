"""A subscription's cycles: opening, charging, and failed charges.

Facts sections 3 and 4: an invoice opens a cycle and carries all waiting add-ons. Charges are tried on T+0 to T+3, then
the subscription is halted, and its invoices are issued but not charged. It completes when its last invoice is paid.
Assumption: with an unpaid last invoice it completes at the cycle's end.
"""

from sandbox.razorpay import events, payments
from sandbox.razorpay.books import Books, new_id
from sandbox.razorpay.calendar import DAY_S, boundary
from sandbox.razorpay.entities import Invoice, Json, LineItem, Method, Payment, Subscription
from sandbox.razorpay.payments import OK

MAX_ATTEMPTS = 4


def end_of_cycle(books: Books, sub: Subscription, cycles: int) -> int:
    """End of a cycle by its number, once the first has started."""
    plan = books.plans[sub.plan_id]
    return boundary(sub.start_at or 0, cycles, plan.period, plan.interval)


def is_last(sub: Subscription) -> bool:
    """Whether all cycles have begun."""
    return sub.cycles - sub.swallowed >= sub.total_count


def open_cycle(books: Books, sub: Subscription, now: int, *, started: int) -> Invoice:
    """Begins the next cycle at `started` and issues its invoice with the waiting add-ons."""
    _apply_changes(books, sub, now)
    sub.cycles += 1
    sub.current_start, sub.current_end = started, end_of_cycle(books, sub, sub.cycles)
    plan = books.plans[sub.plan_id]
    lines = [
        LineItem(
            id=new_id("li"),
            name=plan.item.name,
            amount=plan.item.amount,
            currency=plan.item.currency,
            quantity=sub.quantity,
            type="plan",
        )
    ]
    invoice = issue(books, sub, lines, now)
    invoice.billing_start, invoice.billing_end = sub.current_start, sub.current_end
    sub.invoice_id = invoice.id
    return invoice


def issue(books: Books, sub: Subscription, lines: list[LineItem], now: int) -> Invoice:
    """Creates an invoice of these lines and the waiting add-ons, with its order."""
    plan = books.plans[sub.plan_id]
    waiting = [each for each in books.addons.values() if each.subscription_id == sub.id and each.invoice_id is None]
    key = new_id("inv")
    for addon in waiting:
        addon.invoice_id = key
        lines.append(
            LineItem(
                id=new_id("li"),
                name=addon.item.name,
                amount=addon.item.amount,
                currency=addon.item.currency,
                quantity=addon.quantity,
                type="addon",
            )
        )
    total = sum(line.amount * line.quantity for line in lines)
    order = payments.new_order(books, now, total, plan.item.currency)
    made = Invoice(
        id=key,
        subscription_id=sub.id,
        customer_id=sub.customer_id,
        customer={"email": sub.customer_email, "contact": sub.customer_contact},
        order_id=order.id,
        line_items=lines,
        issued_at=now,
        amount=total,
        currency=plan.item.currency,
        short_url=books.page(key),
        created_at=now,
    )
    books.invoices[key] = made
    return made


def settle(books: Books, invoice: Invoice, payment: Payment, now: int) -> None:
    """Marks an invoice as paid by a captured payment."""
    payment.invoice_id = invoice.id
    invoice.status, invoice.paid_at, invoice.payment_id = "paid", now, payment.id
    order = books.orders[payment.order_id or ""]
    events.order_paid(books, now, order, payment)
    events.invoice_paid(books, now, invoice, order, payment)


def attempt(books: Books, sub: Subscription, invoice: Invoice, now: int) -> None:
    """Charges an invoice without the payer, and updates the subscription."""
    method = sub.method or "card_domestic"
    order = books.orders[invoice.order_id or ""]
    payment = payments.new_payment(
        books,
        now,
        order,
        method,
        paise=invoice.amount,
        kind="recurring",
        description="Recurring Payment via Subscription",
        subscription=sub,
    )
    payment.invoice_id = invoice.id
    reason = _outcome(books, sub, method, invoice.amount)
    if reason == OK:
        payments.capture(books, payment, now)
        settle(books, invoice, payment, now)
        charged(books, sub, payment, now)
    else:
        payments.fail(books, payment, reason, now)
        _charge_failed(books, sub, now)


def _outcome(books: Books, sub: Subscription, method: Method, paise: int) -> str:
    """The outcome of a debit: the mandate's cap, then the ordered outcome."""
    if reason := payments.beyond_cap(books, method, paise):
        return reason
    return sub.outcomes.pop(0) if sub.outcomes else OK


def charged(books: Books, sub: Subscription, payment: Payment, now: int) -> None:
    """Counts a successful charge, and reactivates a pending or halted subscription."""
    slept = sub.status in ("pending", "halted")
    sub.paid_count += 1
    if sub.status not in ("cancelled", "completed", "expired", "paused"):
        sub.status, sub.auth_attempts, sub.halted_at = "active", 0, None
        sub.charge_at = None if is_last(sub) else sub.current_end
    events.subscription(books, now, "charged", sub, payment)
    if slept and sub.status == "active":
        events.subscription(books, now, "activated", sub, payment)
    current = books.invoices.get(sub.invoice_id or "")
    if sub.status == "active" and is_last(sub) and current is not None and current.status == "paid":
        complete(books, sub, now, payment)


def complete(books: Books, sub: Subscription, now: int, payment: Payment | None = None) -> None:
    """Marks that the last invoice was issued; its cycle still runs."""
    sub.status, sub.charge_at = "completed", None
    sub.ended_at = sub.end_at
    events.subscription(books, now, "completed", sub, payment)


def _charge_failed(books: Books, sub: Subscription, now: int) -> None:
    sub.auth_attempts += 1
    if sub.auth_attempts >= MAX_ATTEMPTS:
        sub.status, sub.halted_at, sub.charge_at = "halted", now, sub.current_end
        events.subscription(books, now, "halted", sub)
        sub.auth_attempts = 0
        return
    sub.status = "pending"
    sub.charge_at = (sub.charge_at or now) + DAY_S
    events.subscription(books, now, "pending", sub)


def change(books: Books, sub: Subscription, changes: Json) -> None:
    """Applies an update."""
    for name, value in changes.items():
        setattr(sub, name, value)
    if sub.start_at is not None:
        sub.end_at = end_of_cycle(books, sub, sub.total_count - 1)


def _apply_changes(books: Books, sub: Subscription, now: int) -> None:
    """Applies an update scheduled for the cycle's end."""
    if not sub.changes:
        return
    change(books, sub, sub.changes)
    sub.changes, sub.has_scheduled_changes, sub.change_scheduled_at = {}, False, None
    events.subscription(books, now, "updated", sub)
