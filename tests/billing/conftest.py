"""Billing contexts on the test worker's Postgres and Redis and on a simulated Razorpay."""

from collections.abc import AsyncIterator

import pytest

from billing.context import BillingContext
from core.clock import stop_following
from tests import simulated_razorpay as sandbox
from tests.billing.billed_tenant import impatient
from tests.billing.operator import OperatorSetup
from tests.billing.signup import Signup
from tests.billing_context import open_billing_context


@pytest.fixture
async def context(database_url: str, redis_url: str, razorpay: sandbox.Razorpay) -> AsyncIterator[BillingContext]:
    """A billing context with default settings and an empty database."""
    async with open_billing_context(database_url, redis_url, razorpay) as made:
        yield made


@pytest.fixture
async def setup(context: BillingContext) -> OperatorSetup:
    """An operator with a plan."""
    return await OperatorSetup.open(context)


@pytest.fixture
async def signup(context: BillingContext, razorpay: sandbox.Razorpay) -> AsyncIterator[Signup]:
    """A tenant that may subscribe, with short time-outs, on the simulator's clock."""
    quick = impatient(context, razorpay)
    yield await Signup.open(quick, razorpay)
    stop_following()
    quick.razorpay.close()
