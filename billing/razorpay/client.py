"""The way to Razorpay: every call billing makes, typed. The only module that imports `razorpay`.

The rule: every call has bounds and a clear failure (`billing.razorpay.errors`); reads are tried again, writes never:
who writes has stored the intent before, and looks (`find_...`, `fetch_...`) before anything is done a second time.
When Razorpay is down, reads end in RazorpayUnavailable and writes in RazorpayInDoubt, after a bounded time.
Source: facts/razorpay.md, sections 1, 2 and 7.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import razorpay
from pydantic import SecretStr

from billing.razorpay.entities import (
    Addon,
    Customer,
    Invoice,
    Misshapen,
    Payment,
    PaymentLink,
    Plan,
    Refund,
    Subscription,
    entities,
    entity,
)
from billing.razorpay.errors import RazorpayUnavailable
from billing.razorpay.transport import Patience, Session, Transport
from core.settings import Settings

PAGE = 100  # Razorpay's largest
MAX_PAGES = 50

_ID = re.compile(r"[a-z]+_[A-Za-z0-9]{1,40}")
_REFUND_KEY = re.compile(r"[A-Za-z0-9_-]{10,}")

E = TypeVar("E", Plan, Customer, Subscription, Invoice, Payment, Refund, PaymentLink, Addon)
Json = dict[str, Any]
Resource = Callable[[Any], Any]
"""One of the SDK's resources, given a client."""


class Razorpay:
    """The gateway. One per process and event loop; close it at the end."""

    def __init__(
        self, *, key_id: str, key_secret: SecretStr, base_url: str, patience: Patience | None = None, threads: int = 8
    ) -> None:
        self.key_id = key_id
        """Public: Checkout needs it."""

        def client(session: Session) -> Any:
            return razorpay.Client(session=session, auth=(key_id, key_secret.get_secret_value()), base_url=base_url)

        self._transport = Transport(client, base_url, patience or Patience(), threads)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Razorpay":
        """The gateway of this process."""
        return cls(
            key_id=settings.razorpay_key_id,
            key_secret=settings.razorpay_key_secret,
            base_url=settings.razorpay_base_url,
        )

    def close(self) -> None:
        """Takes no more calls; a running one ends by its own time-outs."""
        self._transport.close()

    # ------------------------------------------------------------------------------- plans and customers

    async def create_plan(self, *, name: str, amount_paise: int, notes: Mapping[str, str]) -> Plan:
        """A monthly price in INR, GST included; it can never be changed or deleted."""
        body = {
            "period": "monthly",
            "interval": 1,
            "item": {"name": name, "amount": amount_paise, "currency": "INR"},
            "notes": dict(notes),
        }
        return await self._write(Plan, lambda sdk: sdk.plan.create(body))

    async def fetch_plan(self, plan_id: str) -> Plan:
        """The plan."""
        return await self._fetch(Plan, _id(plan_id), lambda sdk: sdk.plan)

    async def find_plans(self, notes: Mapping[str, str]) -> list[Plan]:
        """The plans that bear all these notes, newest first."""
        return [plan for plan in await self._all(Plan, lambda sdk: sdk.plan) if _bears(plan.notes, notes)]

    async def create_customer(
        self, *, name: str, email: str, contact: str | None = None, notes: Mapping[str, str]
    ) -> Customer:
        """The customer with this e-mail and contact, new or as it was: repeating it is harmless."""
        body = {"name": name, "email": email, "fail_existing": "0", "notes": dict(notes)}
        return await self._write(Customer, lambda sdk: sdk.customer.create(_given(body, contact=contact)))

    async def fetch_customer(self, customer_id: str) -> Customer:
        """The customer."""
        return await self._fetch(Customer, _id(customer_id), lambda sdk: sdk.customer)

    # ------------------------------------------------------------------------------------- subscriptions

    async def create_subscription(
        self,
        *,
        plan_id: str,
        total_count: int,
        notes: Mapping[str, str],
        start_at: int | None = None,
        expire_by: int | None = None,
        customer_notify: bool = True,
    ) -> Subscription:
        """A subscription to be authorised at its `short_url`. Nothing makes it unique but our own notes."""
        body: Json = {"plan_id": _id(plan_id), "total_count": total_count, "notes": dict(notes)}
        body = _given(body | {"customer_notify": customer_notify}, start_at=start_at, expire_by=expire_by)
        return await self._write(Subscription, lambda sdk: sdk.subscription.create(body))

    async def fetch_subscription(self, subscription_id: str) -> Subscription:
        """The subscription as it is now."""
        return await self._fetch(Subscription, _id(subscription_id), lambda sdk: sdk.subscription)

    async def list_subscriptions(
        self, *, plan_id: str | None = None, since: int | None = None, until: int | None = None
    ) -> list[Subscription]:
        """Those created in `since..until`, both inclusive, newest first. The list may lag minutes behind a fetch."""
        filters = _given({}, plan_id=plan_id, **{"from": since, "to": until})
        return await self._all(Subscription, lambda sdk: sdk.subscription, filters)

    async def find_subscriptions(
        self, notes: Mapping[str, str], *, since: int | None = None, until: int | None = None
    ) -> list[Subscription]:
        """Those that bear all these notes. None found proves nothing before the list has caught up."""
        return [one for one in await self.list_subscriptions(since=since, until=until) if _bears(one.notes, notes)]

    async def cancel_subscription(self, subscription_id: str, *, at_cycle_end: bool = False) -> Subscription:
        """Cancels. At cycle end: the answer shows no trace, and pending, halted and paused ones ignore it."""
        body, one = {"cancel_at_cycle_end": at_cycle_end}, _id(subscription_id)
        return await self._write(Subscription, lambda sdk: sdk.subscription.cancel(one, body))

    async def update_subscription(self, subscription_id: str, changes: Mapping[str, Any]) -> Subscription:
        """Changes plan, quantity, count or start; refused for UPI, e-mandates and, nearly always, Indian cards."""
        body, one = dict(changes), _id(subscription_id)
        return await self._write(Subscription, lambda sdk: sdk.subscription.edit(one, body))

    async def pause_subscription(self, subscription_id: str) -> Subscription:
        """Pauses an active one, now; an authenticated one would be cancelled by it."""
        one = _id(subscription_id)
        return await self._write(Subscription, lambda sdk: sdk.subscription.pause(one, {"pause_at": "now"}))

    async def resume_subscription(self, subscription_id: str) -> Subscription:
        """Resumes a paused one, now."""
        one = _id(subscription_id)
        return await self._write(Subscription, lambda sdk: sdk.subscription.resume(one, {"resume_at": "now"}))

    # -------------------------------------------------------------------- invoices, payments and refunds

    async def invoices_of(self, subscription_id: str) -> list[Invoice]:
        """All invoices of a subscription, newest first."""
        one = _id(subscription_id)
        found = await self._all(Invoice, lambda sdk: sdk.invoice, {"subscription_id": one})
        return [invoice for invoice in found if invoice.subscription_id == one]

    async def fetch_invoice(self, invoice_id: str) -> Invoice:
        """The invoice."""
        return await self._fetch(Invoice, _id(invoice_id), lambda sdk: sdk.invoice)

    async def fetch_payment(self, payment_id: str) -> Payment:
        """The payment."""
        return await self._fetch(Payment, _id(payment_id), lambda sdk: sdk.payment)

    async def list_payments(self, *, since: int, until: int) -> list[Payment]:
        """Those created in `since..until`, newest first; the list may lag by minutes."""
        return await self._all(Payment, lambda sdk: sdk.payment, {"from": since, "to": until})

    async def refund(self, payment_id: str, *, amount_paise: int, key: str, notes: Mapping[str, str]) -> Refund:
        """Gives money back, once per `key` (10 characters or more): after a doubt, the same call is safe again."""
        if not _REFUND_KEY.fullmatch(key):
            raise ValueError("a refund's key is at least 10 of A-Z a-z 0-9 _ -")
        body, one = {"amount": amount_paise, "notes": dict(notes)}, _id(payment_id)
        headers = {"X-Refund-Idempotency": key}
        return await self._write(Refund, lambda sdk: sdk.payment.refund(one, body, headers=headers))

    async def refunds_of(self, payment_id: str) -> list[Refund]:
        """All refunds of a payment."""
        one = _id(payment_id)
        return await self._pages(Refund, lambda sdk, page: sdk.payment.fetch_multiple_refund(one, page))

    # ------------------------------------------------------------------------------------- payment links

    async def create_payment_link(
        self,
        *,
        amount_paise: int,
        reference_id: str,
        description: str,
        customer: Mapping[str, str],
        expire_by: int,
        notes: Mapping[str, str],
    ) -> PaymentLink:
        """A link for the whole amount. A `reference_id` that was ever used is refused, even if its link is gone."""
        body = {
            "amount": amount_paise,
            "currency": "INR",
            "accept_partial": False,
            "reference_id": reference_id,
            "description": description,
            "customer": dict(customer),
            "expire_by": expire_by,
            "reminder_enable": True,
            "notify": {"sms": "contact" in customer, "email": "email" in customer},
            "notes": dict(notes),
        }
        return await self._write(PaymentLink, lambda sdk: sdk.payment_link.create(body))

    async def fetch_payment_link(self, link_id: str) -> PaymentLink:
        """The link as it is now."""
        return await self._fetch(PaymentLink, _id(link_id), lambda sdk: sdk.payment_link)

    async def cancel_payment_link(self, link_id: str) -> PaymentLink:
        """Cancels one that nobody has paid; refused otherwise."""
        one = _id(link_id)
        return await self._write(PaymentLink, lambda sdk: sdk.payment_link.cancel(one))

    async def find_payment_links(self, reference_id: str) -> list[PaymentLink]:
        """The link of a reference: one, or none (yet: lists may lag)."""
        found = await self._all(PaymentLink, lambda sdk: sdk.payment_link, {"reference_id": reference_id})
        return [link for link in found if link.reference_id == reference_id]

    async def list_payment_links(self, *, since: int, until: int) -> list[PaymentLink]:
        """Those created in `since..until`, newest first; the list may lag by minutes."""
        return await self._all(PaymentLink, lambda sdk: sdk.payment_link, {"from": since, "to": until})

    # ------------------------------------------------------------------------------------------- add-ons

    async def create_addon(self, subscription_id: str, *, name: str, amount_paise: int, description: str) -> Addon:
        """Puts an amount on the invoice *after* the next; our key goes into `name`, for it has no notes."""
        item = {"name": name, "amount": amount_paise, "currency": "INR", "description": description}
        one = _id(subscription_id)
        return await self._write(Addon, lambda sdk: sdk.subscription.createAddon(one, {"item": item, "quantity": 1}))

    async def fetch_addon(self, addon_id: str) -> Addon:
        """The add-on; refused once it is deleted."""
        return await self._fetch(Addon, _id(addon_id), lambda sdk: sdk.addon)

    async def list_addons(self, *, since: int | None = None, until: int | None = None) -> list[Addon]:
        """Those created in `since..until`, newest first. Razorpay cannot filter them by subscription."""
        return await self._all(Addon, lambda sdk: sdk.addon, _given({}, **{"from": since, "to": until}))

    async def delete_addon(self, addon_id: str) -> None:
        """Deletes one that no invoice carries yet. Read it back before the money is asked for otherwise."""
        one = _id(addon_id)
        await self._transport.write(lambda sdk: sdk.addon.delete(one), _nothing)

    # --------------------------------------------------------------------------------------- all of them

    async def _write(self, kind: type[E], work: Callable[[Any], Any]) -> E:
        return await self._transport.write(work, partial(entity, kind))

    async def _fetch(self, kind: type[E], one: str, resource: Resource) -> E:
        found = await self._transport.read(lambda sdk: resource(sdk).fetch(one), partial(entity, kind))
        if found.id != one:
            raise RazorpayUnavailable(f"asked for {one}, got another {kind.__name__}")
        return found

    async def _all(self, kind: type[E], resource: Resource, filters: Json | None = None) -> list[E]:
        return await self._pages(kind, lambda sdk, page: resource(sdk).all((filters or {}) | page))

    async def _pages(self, kind: type[E], ask: Callable[[Any, Json], Any]) -> list[E]:
        """Every page. Raises RazorpayUnavailable past MAX_PAGES: half a list would say "not there" of what is there."""
        found: dict[str, E] = {}  # by id: what is created meanwhile shifts the pages, and an item comes twice
        for number in range(MAX_PAGES):
            where = {"count": PAGE, "skip": number * PAGE}
            page = await self._transport.read(partial(_ask_page, ask, where), partial(entities, kind))
            found |= {one.id: one for one in page}
            if len(page) < PAGE:
                return list(found.values())
        raise RazorpayUnavailable(f"more than {MAX_PAGES} pages of {kind.__name__}: narrow the time")


def _ask_page(ask: Callable[[Any, Json], Any], where: Json, sdk: Any) -> Any:
    return ask(sdk, where)


def _id(value: str) -> str:
    """An id that is safe in a path: one from outside must not lead to another resource. Raises ValueError."""
    if not _ID.fullmatch(value):
        raise ValueError("not an id of Razorpay's")
    return value


def _given(body: Json, **fields: Any) -> Json:
    return body | {name: value for name, value in fields.items() if value is not None}


def _bears(notes: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= notes.items()


def _nothing(answer: object) -> None:
    if answer not in ([], {}):
        raise Misshapen("no empty answer to a deletion")
