"""A simulator as a process, and the SDK pointed at it."""

from collections.abc import AsyncIterator, Iterator

import anthropic
import httpx2
import pytest

from tests.sandbox.anthropic.bench import HEADERS, OTHER_KEY, Bench
from tests.sandbox.test_anthropic import KEY, server


@pytest.fixture(scope="package")
def url() -> Iterator[str]:
    with server("--api-key", OTHER_KEY, "--pace-ms", "0") as (_, address):
        yield address


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, headers=HEADERS, timeout=10) as client:
        yield client


@pytest.fixture
def bench(http: httpx2.AsyncClient) -> Bench:
    return Bench(http)


@pytest.fixture
async def claude(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client
