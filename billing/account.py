"""The Razorpay mode that a database belongs to, fixed at the first start.

Ids of test and live mode mean nothing in each other, so a process with keys of another mode refuses to start. A key of
the same mode may be rotated. Postgres down: raises Unavailable.
"""

from sqlalchemy.dialects.postgresql import insert

from billing.gst.invoice_numbers import mode_of
from billing.models import RazorpayAccount
from core.postgres.database import Database
from core.settings import Settings, SettingsError

_ONLY = 1


async def ensure_same_mode(database: Database, settings: Settings) -> None:
    """Stores the key's mode, or compares it with the stored one. Does nothing without a key.

    Raises SettingsError if the database belongs to another mode.
    """
    if not settings.razorpay_key_id:
        return
    mode = mode_of(settings.razorpay_key_id)
    async with database.session() as session:
        values = {"id": _ONLY, "mode": mode.value, "key_id": settings.razorpay_key_id}
        await session.execute(insert(RazorpayAccount).values(**values).on_conflict_do_nothing())
        row = await session.get_one(RazorpayAccount, _ONLY, with_for_update=True, populate_existing=True)
        if row.mode != mode.value:
            raise SettingsError(
                f"RAZORPAY_KEY_ID is of mode {mode}, but this database of mode {row.mode}; their bills must not mix"
            )
        row.key_id = settings.razorpay_key_id
