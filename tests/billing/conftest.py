"""A desk of billing on the worker's Postgres and Redis and on a Razorpay of its own."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from billing.desk import Desk, build_desk
from core.changes import Changes
from core.clock import stop_following
from core.database import Database
from core.settings import Settings
from tests import simulated_razorpay as sandbox
from tests.billing.office import Office
from tests.billing.signup import Signup
from tests.billing.till import hasty


@pytest.fixture
async def desk(database_url: str, redis_url: str, razorpay: sandbox.Razorpay) -> AsyncIterator[Desk]:
    """A process's worth of billing, as the settings are by default; its database is empty."""
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        razorpay_key_id=sandbox.KEY_ID,
        razorpay_key_secret=sandbox.KEY_SECRET,
        razorpay_base_url=razorpay.url,
    )
    database, redis = Database(database_url), Redis.from_url(redis_url)
    made = build_desk(settings, database, Changes(redis))
    yield made
    made.razorpay.close()
    await redis.aclose()
    await database.close()


@pytest.fixture
async def office(desk: Desk) -> Office:
    """The desk with an operator and a plan."""
    return await Office.open(desk)


@pytest.fixture
async def signup(desk: Desk, razorpay: sandbox.Razorpay) -> AsyncIterator[Signup]:
    """A tenant that may subscribe, at a desk that does not wait for Razorpay for long, in the simulator's time."""
    quick = hasty(desk, razorpay)
    yield await Signup.open(quick, razorpay)
    stop_following()
    quick.razorpay.close()
