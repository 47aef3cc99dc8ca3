"""URLs that a tenant may have called."""

import pytest

from core.errors import Invalid
from core.network.tenant_urls import checked_url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "http://",
        "https://user:secret@a.example/",
        "https://a.example/#x",
        "https://a.example:0/",
        "https://a.example:99999/",
        "https://a.example/\n",
        "https://" + "a" * 500,
    ],
)
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(Invalid):
        checked_url(url, production=False)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "localhost", "db.internal"]
)
def test_what_is_no_endpoint_in_production(host: str) -> None:
    assert checked_url(f"https://{host}/x", production=False)
    with pytest.raises(Invalid):
        checked_url(f"https://{host}/x", production=True)
    with pytest.raises(Invalid):
        checked_url("http://a.example/x", production=True)
    assert checked_url("https://a.example/x", production=True)
