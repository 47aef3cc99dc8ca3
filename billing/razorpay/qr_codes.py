"""Calls of UPI QR codes, each for one payment of a fixed amount.

Nothing makes a code unique: its notes find it. Source: Razorpay's API reference (QR codes), and the SDK's code.
"""

from collections.abc import AsyncIterator, Mapping

from billing.razorpay.calls import Calls, checked_id, has_notes
from billing.razorpay.entities import Payment, QrCode

LIFETIME_S = 7_200
"""Razorpay closes a code for one payment after two hours at most."""


class QrCodeCalls(Calls):
    """The calls of QR codes."""

    async def create_qr_code(
        self, *, name: str, amount_paise: int, description: str, close_by: int, notes: Mapping[str, str]
    ) -> QrCode:
        """Creates a code that one payment of this amount closes. A repeated call creates another."""
        body = {
            "type": "upi_qr",
            "name": name,
            "usage": "single_use",
            "fixed_amount": True,
            "payment_amount": amount_paise,
            "description": description,
            "close_by": close_by,
            "notes": dict(notes),
        }
        return await self._write(QrCode, lambda sdk: sdk.qrcode.create(body))

    async def fetch_qr_code(self, qr_code_id: str) -> QrCode:
        """The current code."""
        return await self._fetch(QrCode, checked_id(qr_code_id), lambda sdk: sdk.qrcode)

    async def close_qr_code(self, qr_code_id: str) -> QrCode:
        """Closes an active code; refused otherwise. A payment that the payer's app has begun may still come."""
        one = checked_id(qr_code_id)
        return await self._write(QrCode, lambda sdk: sdk.qrcode.close(one))

    async def payments_of_qr_code(self, qr_code_id: str) -> list[Payment]:
        """Every payment of a code, oldest first. The list may lag."""
        one = checked_id(qr_code_id)
        found = await self._pages(Payment, lambda sdk, page: sdk.qrcode.fetch_all_payments(one, page))
        return sorted(found, key=lambda payment: (payment.created_at, payment.id))

    async def find_qr_codes(self, notes: Mapping[str, str], *, since: int, until: int) -> list[QrCode]:
        """The codes with all these notes that were created in `since..until`, newest first. The list may lag."""
        found = await self._all(QrCode, lambda sdk: sdk.qrcode, {"from": since, "to": until})
        return [code for code in found if has_notes(code.notes, notes)]

    async def qr_codes_of_payment(self, payment_id: str) -> list[QrCode]:
        """The code that a payment paid: one or none."""
        return await self._all(QrCode, lambda sdk: sdk.qrcode, {"payment_id": checked_id(payment_id)})

    def qr_code_pages(self, *, since: int, until: int) -> AsyncIterator[list[QrCode]]:
        """Pages of those created in `since..until`, newest first, however many; the list may lag by minutes."""
        return self._each_page(QrCode, lambda sdk: sdk.qrcode, {"from": since, "to": until})
