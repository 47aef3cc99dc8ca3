"""A prepaid tenant."""

from collections.abc import AsyncIterator

import pytest

from core.clock import stop_following
from tests.billing.operator import OperatorSetup
from tests.billing.prepaid.prepaid_tenant import PrepaidTenant
from tests.simulated_razorpay import Razorpay


@pytest.fixture
async def prepaid(setup: OperatorSetup, razorpay: Razorpay) -> AsyncIterator[PrepaidTenant]:
    """A tenant on a prepaid plan, with a profile, on the simulator's clock."""
    tenant = await PrepaidTenant.open(setup, razorpay)
    yield tenant
    tenant.close()
    stop_following()
