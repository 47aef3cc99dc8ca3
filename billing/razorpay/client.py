"""The typed client of Razorpay, with every call that billing makes. The only module that imports `razorpay`.

Reads are retried, writes never; their callers store the intent first and look (`find_...`, `fetch_...`) before
repeating one (`billing.writes`). Razorpay down: reads raise RazorpayUnavailable and writes RazorpayInDoubt, after a
bounded time. Source: Razorpay's API reference, and the SDK's code (`razorpay` 2.0.1).
"""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import razorpay
from pydantic import SecretStr

from billing.razorpay.calls import PAGE, Json, checked_id, entities_of, given, has_notes, nothing
from billing.razorpay.entities import Addon, Dispute, Invoice, Payment, PaymentLink, Plan, Refund, Subscription
from billing.razorpay.qr_codes import QrCodeCalls
from billing.razorpay.recurring import RecurringCalls
from billing.razorpay.transport import Patience, Session, Transport
from core.settings import Settings

_REFUND_KEY = re.compile(r"[A-Za-z0-9_-]{10,}")


class Razorpay(RecurringCalls, QrCodeCalls):
    """The client. One per process and event loop; close it at the end."""

    def __init__(
        self, *, key_id: str, key_secret: SecretStr, base_url: str, patience: Patience | None = None, threads: int = 8
    ) -> None:
        self.key_id = key_id
        """Not secret; Checkout needs it in the browser."""

        def client(session: Session) -> Any:
            return razorpay.Client(session=session, auth=(key_id, key_secret.get_secret_value()), base_url=base_url)

        super().__init__(Transport(client, base_url, patience or Patience(), threads))

    @classmethod
    def from_settings(cls, settings: Settings) -> "Razorpay":
        """The client that the settings describe."""
        return cls(
            key_id=settings.razorpay_key_id,
            key_secret=settings.razorpay_key_secret,
            base_url=settings.razorpay_base_url,
        )

    def close(self) -> None:
        """Refuses further calls; a running one ends by its own time-out."""
        self._transport.close()

    async def create_plan(self, *, name: str, amount_paise: int, notes: Mapping[str, str]) -> Plan:
        """Creates a monthly price in INR including GST. It can't be changed or deleted."""
        body = {
            "period": "monthly",
            "interval": 1,
            "item": {"name": name, "amount": amount_paise, "currency": "INR"},
            "notes": dict(notes),
        }
        return await self._write(Plan, lambda sdk: sdk.plan.create(body))

    async def find_plans(self, notes: Mapping[str, str]) -> list[Plan]:
        """The plans with all these notes, newest first."""
        return [plan for plan in await self._all(Plan, lambda sdk: sdk.plan) if has_notes(plan.notes, notes)]

    async def create_subscription(
        self,
        *,
        plan_id: str,
        total_count: int,
        notes: Mapping[str, str],
        start_at: int | None = None,
        expire_by: int | None = None,
    ) -> Subscription:
        """Creates a subscription to be authorised at its `short_url`. Only our notes make it unique."""
        body: Json = {"plan_id": checked_id(plan_id), "total_count": total_count, "notes": dict(notes)}
        body = given(body | {"customer_notify": True}, start_at=start_at, expire_by=expire_by)
        return await self._write(Subscription, lambda sdk: sdk.subscription.create(body))

    async def fetch_subscription(self, subscription_id: str) -> Subscription:
        """The current subscription."""
        return await self._fetch(Subscription, checked_id(subscription_id), lambda sdk: sdk.subscription)

    async def list_subscriptions(self, *, since: int | None = None, until: int | None = None) -> list[Subscription]:
        """Created in `since..until`, both inclusive, newest first. The list may lag minutes behind a fetch."""
        return await self._all(Subscription, lambda sdk: sdk.subscription, given({}, **{"from": since, "to": until}))

    def subscription_pages(self, *, since: int) -> AsyncIterator[list[Subscription]]:
        """Pages of those created since, newest first, however many."""
        return self._each_page(Subscription, lambda sdk: sdk.subscription, {"from": since})

    async def find_subscriptions(
        self, notes: Mapping[str, str], *, since: int | None = None, until: int | None = None
    ) -> list[Subscription]:
        """Subscriptions with all these notes. Finding none proves nothing until the list has caught up."""
        return [one for one in await self.list_subscriptions(since=since, until=until) if has_notes(one.notes, notes)]

    async def cancel_subscription(self, subscription_id: str) -> Subscription:
        """Cancels now. Pending, halted and paused ones would ignore a cancel at cycle end."""
        body, one = {"cancel_at_cycle_end": False}, checked_id(subscription_id)
        return await self._write(Subscription, lambda sdk: sdk.subscription.cancel(one, body))

    async def pause_subscription(self, subscription_id: str) -> Subscription:
        """Pauses an active subscription now. It would cancel an authenticated one."""
        one = checked_id(subscription_id)
        return await self._write(Subscription, lambda sdk: sdk.subscription.pause(one, {"pause_at": "now"}))

    async def resume_subscription(self, subscription_id: str) -> Subscription:
        """Resumes a paused subscription now."""
        one = checked_id(subscription_id)
        return await self._write(Subscription, lambda sdk: sdk.subscription.resume(one, {"resume_at": "now"}))

    async def invoices_of(self, subscription_id: str) -> list[Invoice]:
        """All invoices of a subscription, newest first."""
        one = checked_id(subscription_id)
        found = await self._all(Invoice, lambda sdk: sdk.invoice, {"subscription_id": one})
        return [invoice for invoice in found if invoice.subscription_id == one]

    async def fetch_invoice(self, invoice_id: str) -> Invoice:
        """The invoice."""
        return await self._fetch(Invoice, checked_id(invoice_id), lambda sdk: sdk.invoice)

    async def fetch_payment(self, payment_id: str) -> Payment:
        """The payment."""
        return await self._fetch(Payment, checked_id(payment_id), lambda sdk: sdk.payment)

    async def list_payments(self, *, since: int, until: int) -> list[Payment]:
        """Created in `since..until`, newest first; the list may lag by minutes."""
        return await self._all(Payment, lambda sdk: sdk.payment, {"from": since, "to": until})

    def payment_pages(self, *, since: int, until: int) -> AsyncIterator[list[Payment]]:
        """Pages of those created in `since..until`, newest first, however many; the list may lag by minutes."""
        return self._each_page(Payment, lambda sdk: sdk.payment, {"from": since, "to": until})

    async def fits_a_page(self, *, since: int, until: int) -> bool:
        """Whether one page holds the payments of this time, and another the links."""
        where = {"from": since, "to": until, "count": 1, "skip": PAGE - 1}
        payments = await self._transport.read(lambda sdk: sdk.payment.all(dict(where)), entities_of(Payment))
        links = await self._transport.read(lambda sdk: sdk.payment_link.all(dict(where)), entities_of(PaymentLink))
        return not payments and not links

    async def refund(self, payment_id: str, *, amount_paise: int, key: str, notes: Mapping[str, str]) -> Refund:
        """Refunds, once per `key` (10 characters or more); repeating the same call is safe."""
        if not _REFUND_KEY.fullmatch(key):
            raise ValueError("a refund's key is at least 10 of A-Z a-z 0-9 _ -")
        body, one = {"amount": amount_paise, "notes": dict(notes)}, checked_id(payment_id)
        headers = {"X-Refund-Idempotency": key}
        return await self._write(Refund, lambda sdk: sdk.payment.refund(one, body, headers=headers))

    async def refunds_of(self, payment_id: str) -> list[Refund]:
        """All refunds of a payment."""
        one = checked_id(payment_id)
        return await self._pages(Refund, lambda sdk, page: sdk.payment.fetch_multiple_refund(one, page))

    async def fetch_dispute(self, dispute_id: str) -> Dispute:
        """The current dispute."""
        return await self._fetch(Dispute, checked_id(dispute_id), lambda sdk: sdk.dispute)

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
        """Creates a link for the whole amount. A `reference_id` that was ever used, even by a gone link, is refused."""
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
        """The current link."""
        return await self._fetch(PaymentLink, checked_id(link_id), lambda sdk: sdk.payment_link)

    async def cancel_payment_link(self, link_id: str) -> PaymentLink:
        """Cancels an unpaid link; refused otherwise."""
        one = checked_id(link_id)
        return await self._write(PaymentLink, lambda sdk: sdk.payment_link.cancel(one))

    async def find_payment_links(self, reference_id: str) -> list[PaymentLink]:
        """The link of a reference: one or none. The list may lag."""
        found = await self._all(PaymentLink, lambda sdk: sdk.payment_link, {"reference_id": reference_id})
        return [link for link in found if link.reference_id == reference_id]

    def payment_link_pages(self, *, since: int, until: int) -> AsyncIterator[list[PaymentLink]]:
        """Pages of those created in `since..until`, newest first, however many; the list may lag by minutes."""
        return self._each_page(PaymentLink, lambda sdk: sdk.payment_link, {"from": since, "to": until})

    async def create_addon(self, subscription_id: str, *, name: str, amount_paise: int, description: str) -> Addon:
        """Puts an amount on the invoice *after* the next. Add-ons have no notes, so `name` carries our reference."""
        item = {"name": name, "amount": amount_paise, "currency": "INR", "description": description}
        one = checked_id(subscription_id)
        return await self._write(Addon, lambda sdk: sdk.subscription.createAddon(one, {"item": item, "quantity": 1}))

    async def fetch_addon(self, addon_id: str) -> Addon:
        """The add-on; refused once it is deleted."""
        return await self._fetch(Addon, checked_id(addon_id), lambda sdk: sdk.addon)

    async def list_addons(self, *, since: int) -> list[Addon]:
        """Created from `since` on, newest first. Razorpay can't filter them by subscription."""
        return await self._all(Addon, lambda sdk: sdk.addon, {"from": since})

    async def delete_addon(self, addon_id: str) -> None:
        """Deletes an add-on that no invoice carries yet. Fetch it before collecting the money in another way."""
        one = checked_id(addon_id)
        await self._transport.write(lambda sdk: sdk.addon.delete(one), nothing)
