"""A database belongs to one mode of Razorpay's."""

import pytest

from billing.account import bind
from billing.desk import Desk
from core.settings import Settings, SettingsError


def _with(key_id: str | None) -> Settings:
    return Settings(_env_file=None, razorpay_key_id=key_id or "", razorpay_key_secret="x")


async def test_a_key_of_the_same_mode_may_be_rotated_and_no_other_taken(desk: Desk) -> None:
    await bind(desk.database, _with(None))
    for key_id in ("rzp_test_one", "rzp_test_two", "rzp_test_two"):
        await bind(desk.database, _with(key_id))
    with pytest.raises(SettingsError, match="of mode live, and this database of mode test"):
        await bind(desk.database, _with("rzp_live_one"))
    await bind(desk.database, _with("rzp_test_three"))
