"""A desk of billing on the worker's Postgres and Redis and on a Razorpay of its own."""

from collections.abc import AsyncIterator

import pytest

from billing.context import BillingContext
from core.clock import stop_following
from tests import simulated_razorpay as sandbox
from tests.billing.office import Office
from tests.billing.signup import Signup
from tests.billing.till import hasty
from tests.billing_context import open_billing_context


@pytest.fixture
async def context(database_url: str, redis_url: str, razorpay: sandbox.Razorpay) -> AsyncIterator[BillingContext]:
    """A process's worth of billing, as the settings are by default; its database is empty."""
    async with open_billing_context(database_url, redis_url, razorpay) as made:
        yield made


@pytest.fixture
async def office(context: BillingContext) -> Office:
    """The desk with an operator and a plan."""
    return await Office.open(context)


@pytest.fixture
async def signup(context: BillingContext, razorpay: sandbox.Razorpay) -> AsyncIterator[Signup]:
    """A tenant that may subscribe, at a desk that does not wait for Razorpay for long, in the simulator's time."""
    quick = hasty(context, razorpay)
    yield await Signup.open(quick, razorpay)
    stop_following()
    quick.razorpay.close()
