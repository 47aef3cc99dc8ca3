"""Wallets whose balance has fallen below their tenant's bound: once per bound, until something is added.

Postgres down: Unavailable.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Alert, WalletEntry, WalletSettings
from billing.wallet.bounds import unused_paise


def with_a_bound() -> Select[UUID, int | None]:
    """Tenants that want to be alerted, with their bounds."""
    return select(WalletSettings.tenant_id, WalletSettings.low_paise).where(WalletSettings.low_paise > 0)


async def low_balance(
    session: AsyncSession, tenant_id: UUID, low_paise: int, at_ms: int
) -> tuple[str, dict[str, Any]] | None:
    """Key and data of the alert to be stored, if any."""
    last = await _last_added(session, tenant_id)
    key = f"wallet-low:{low_paise}:{last}"
    known = select(Alert.key).where(Alert.tenant_id == tenant_id, Alert.key == key)
    if last is None or await session.scalar(known) is not None:
        return None
    unused = await unused_paise(session, tenant_id, at_ms)
    if unused >= low_paise:
        return None
    return key, {"tenant_id": str(tenant_id), "balance_paise": unused, "below_paise": low_paise}


async def _last_added(session: AsyncSession, tenant_id: UUID) -> str | None:
    """The id of the newest top-up or promotion; None for a wallet that never had any."""
    query = select(func.max(WalletEntry.id.cast(Text))).where(
        WalletEntry.tenant_id == tenant_id, WalletEntry.paise > 0, WalletEntry.of_id.is_(None)
    )
    found: str | None = await session.scalar(query)
    return found
