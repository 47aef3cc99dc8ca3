"""A database belongs to one Razorpay mode."""

import pytest

from billing.account import ensure_same_mode
from billing.context import BillingContext
from core.settings import Settings, SettingsError


def _with(key_id: str | None) -> Settings:
    return Settings(_env_file=None, razorpay_key_id=key_id or "", razorpay_key_secret="x")


async def test_a_key_of_the_same_mode_may_be_rotated_and_no_other_taken(context: BillingContext) -> None:
    await ensure_same_mode(context.database, _with(None))
    for key_id in ("rzp_test_one", "rzp_test_two", "rzp_test_two"):
        await ensure_same_mode(context.database, _with(key_id))
    with pytest.raises(SettingsError, match="of mode live, but this database of mode test"):
        await ensure_same_mode(context.database, _with("rzp_live_one"))
    await ensure_same_mode(context.database, _with("rzp_test_three"))
