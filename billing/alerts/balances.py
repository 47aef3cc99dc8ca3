"""Wallets whose balance has fallen below their tenant's bound: once per bound, until something is added."""

from typing import Any
from uuid import UUID

from sqlalchemy import Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import BillingContext
from billing.models import Alert, WalletEntry, WalletSettings
from billing.wallet.bounds import unused_paise


async def low_balances(context: BillingContext, at_ms: int) -> list[tuple[UUID, str, dict[str, Any]]]:
    """Tenant, key and data of each alert to be stored. Postgres down: Unavailable."""
    query = select(WalletSettings.tenant_id, WalletSettings.low_paise).where(WalletSettings.low_paise > 0)
    found = []
    async with context.database.session() as session:
        for tenant_id, low_paise in (await session.execute(query)).all():
            last = await _last_added(session, tenant_id)
            key = f"wallet-low:{low_paise}:{last}"
            known = select(Alert.key).where(Alert.tenant_id == tenant_id, Alert.key == key)
            if last is None or await session.scalar(known) is not None:
                continue
            unused = await unused_paise(session, tenant_id, at_ms)
            if unused < (low_paise or 0):
                data = {"tenant_id": str(tenant_id), "balance_paise": unused, "below_paise": low_paise}
                found.append((tenant_id, key, data))
    return found


async def _last_added(session: AsyncSession, tenant_id: UUID) -> str | None:
    """The id of the newest top-up or promotion; None for a wallet that never had any."""
    query = select(func.max(WalletEntry.id.cast(Text))).where(
        WalletEntry.tenant_id == tenant_id, WalletEntry.paise > 0, WalletEntry.of_id.is_(None)
    )
    found: str | None = await session.scalar(query)
    return found
