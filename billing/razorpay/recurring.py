"""Calls of Recurring Payments: registration links, tokens, and debits, each an order and a recurring payment.

Source: Razorpay's API reference (recurring payments, UPI and cards; orders), and the SDK's code.
"""

from collections.abc import Mapping
from functools import partial

from billing.razorpay.calls import Calls, Json, checked_id, entities_of, nothing_but_status
from billing.razorpay.entities import Order, Payment, Registration, Token, debited_payment, entity

AUTHORISATION_PAISE = 100
"""The payment with which a customer authorises a mandate; it is real money."""
AS_PRESENTED = "as_presented"
"""The frequency of debits of any amount at any time."""


class RecurringCalls(Calls):
    """The calls of Recurring Payments."""

    async def create_registration(
        self,
        *,
        method: str,
        max_paise: int,
        token_expires_at: int,
        expire_by: int,
        receipt: str,
        description: str,
        customer: Mapping[str, str],
        notes: Mapping[str, str],
    ) -> Registration:
        """Creates a link at which the customer authorises a mandate. Nothing makes it unique; `receipt` finds it."""
        registration: Json = {"method": method, "max_amount": max_paise, "expire_at": token_expires_at}
        body = {
            "customer": dict(customer),
            "type": "link",
            "amount": AUTHORISATION_PAISE,
            "currency": "INR",
            "description": description,
            "subscription_registration": registration | {"frequency": AS_PRESENTED},
            "receipt": receipt,
            "email_notify": False,
            "sms_notify": False,
            "expire_by": expire_by,
            "notes": dict(notes),
        }
        return await self._write(Registration, lambda sdk: sdk.registration_link.create(body))

    async def fetch_registration(self, registration_id: str) -> Registration:
        """The registration, which is an invoice of type `link`."""
        return await self._fetch(Registration, checked_id(registration_id), lambda sdk: sdk.invoice)

    async def find_registrations(self, receipt: str) -> list[Registration]:
        """The registrations with this receipt, newest first. The list may lag."""
        found = await self._all(Registration, lambda sdk: sdk.invoice, {"type": "link", "receipt": receipt})
        return [one for one in found if one.receipt == receipt]

    async def cancel_registration(self, registration_id: str) -> Registration:
        """Cancels a registration that is not authorised yet; refused otherwise."""
        one = checked_id(registration_id)
        return await self._write(Registration, lambda sdk: sdk.invoice.cancel(one))

    async def fetch_token(self, customer_id: str, token_id: str) -> Token:
        """The token; refused once it is deleted."""
        customer, one = checked_id(customer_id), checked_id(token_id)
        return await self._transport.read(lambda sdk: sdk.token.fetch(customer, one), partial(entity, Token))

    async def cancel_token(self, customer_id: str, token_id: str) -> None:
        """Asks for the end of a mandate; a fetch tells when it has ended. Deleting a token would leave the mandate."""
        customer, one = checked_id(customer_id), checked_id(token_id)
        await self._transport.write(lambda sdk: sdk.token.cancel(customer, one), nothing_but_status)

    async def create_order(self, *, amount_paise: int, receipt: str, notes: Mapping[str, str]) -> Order:
        """Creates the order of a debit. It collects nothing by itself; a repeated receipt gives the same order."""
        body = {
            "amount": amount_paise,
            "currency": "INR",
            "receipt": receipt,
            "unique_receipt": True,
            "payment_capture": True,
            "notes": dict(notes),
        }
        return await self._write(Order, lambda sdk: sdk.order.create(body))

    async def find_orders(self, receipt: str) -> list[Order]:
        """The orders with this receipt. The list may lag."""
        found = await self._all(Order, lambda sdk: sdk.order, {"receipt": receipt})
        return [one for one in found if one.receipt == receipt]

    async def payments_of_order(self, order_id: str) -> list[Payment]:
        """Every payment of an order, oldest first."""
        one = checked_id(order_id)
        found = await self._transport.read(lambda sdk: sdk.order.payments(one), entities_of(Payment))
        return sorted(found, key=lambda payment: (payment.created_at, payment.id))

    async def debit_token(
        self,
        *,
        order_id: str,
        amount_paise: int,
        customer_id: str,
        token_id: str,
        payer: Mapping[str, str],
        description: str,
        notes: Mapping[str, str],
    ) -> str:
        """Debits a mandate for an order, and returns the payment's id. Only the order makes it unique.

        `payer`: email and contact. By UPI, Razorpay announces the debit and makes it 25 hours later.
        """
        body: Json = {
            "email": payer["email"],
            "contact": payer["contact"],
            "amount": amount_paise,
            "currency": "INR",
            "order_id": checked_id(order_id),
            "customer_id": checked_id(customer_id),
            "token": checked_id(token_id),
            "recurring": True,
            "description": description,
            "notes": dict(notes),
        }
        return await self._transport.write(lambda sdk: sdk.payment.createRecurring(body), debited_payment)
