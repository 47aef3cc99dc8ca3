"""Checkout's answer counts only if Razorpay signed it for a subscription of the same tenant."""

import pytest

from billing.subscriptions.checkout import confirm_checkout
from billing.subscriptions.intents import live_of
from billing.subscriptions.sync import refresh_subscription
from core.clock import now_ms
from core.errors import Invalid
from tests.billing.signup import Signup


async def test_the_browsers_word_activates_without_a_webhook(signup: Signup) -> None:
    row = await signup.request()
    assert row.razorpay_id
    said = signup.razorpay.authorise(row.razorpay_id)
    payment, signature = said["razorpay_payment_id"], said["razorpay_signature"]

    for forged in (
        (payment, row.razorpay_id, "0" * 64),
        (payment, row.razorpay_id, ""),
        ("pay_TmA4kQ8sLw2ZxR", row.razorpay_id, signature),
        (payment, "sub_TmA1c9RkVe7HbN", signature),
    ):
        with pytest.raises(Invalid):
            await confirm_checkout(signup.context, signup.tenant_id, *forged)
    before = await signup.read(row.id)
    assert (before.status, before.applied) == ("created", 0)

    now = await confirm_checkout(signup.context, signup.tenant_id, payment, row.razorpay_id, signature)

    assert (now.status, now.is_open, now.paid_count) == ("active", False, 1)
    assert now.paid_through_ms
    assert now.paid_through_ms > now_ms()
    assert (await signup.schedule()).periods


async def test_anothers_signature_is_not_ours(signup: Signup) -> None:
    other = await signup.neighbour()
    theirs = await other.request()
    assert theirs.razorpay_id
    said = signup.razorpay.authorise(theirs.razorpay_id)

    with pytest.raises(Invalid):
        await confirm_checkout(
            signup.context,
            signup.tenant_id,
            said["razorpay_payment_id"],
            theirs.razorpay_id,
            said["razorpay_signature"],
        )

    assert (await other.read(theirs.id)).status == "created"
    await refresh_subscription(signup.context, other.tenant_id, theirs.id)
    assert live_of(await other.subscriptions()) is not None
