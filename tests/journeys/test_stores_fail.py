"""The most important cells of the matrix of failing stores (`python -m tests.matrix` runs all), with a short deadline.

In each: running streams end with `done`, new requests get 503 in time, `/readyz` gives the reason, and the accounts
are exact.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Simulator
from tests.matrix.cells import CELLS
from tests.matrix.setup import setup
from tests.matrix.trial import tried

NAMES = ("frozen", "password-changed", "read-only", "lock-timeout")


@pytest.mark.chaos
async def test_a_store_that_fails_in_any_way_delays_and_loses_nothing(
    private_home: Callable[[], Path], simulator: Simulator
) -> None:
    async with setup(private_home(), simulator, deadline_s=3) as made:
        for cell in CELLS:
            if cell.name in NAMES:
                made.account = await made.books.account()
                await tried(made, cell, probes=1, words=40)
