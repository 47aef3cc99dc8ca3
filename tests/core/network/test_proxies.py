"""The choice of a proxy by NO_PROXY; this machine's addresses never use one."""

import pytest

from core.network.proxies import Proxies, checked_proxy

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("url", "bypassed", "through"),
    [
        ("https://api.anthropic.com/v1", "", PROXY),
        ("https://api.anthropic.com/v1", "anthropic.com", None),
        ("https://api.anthropic.com/v1", " .anthropic.com , x", None),
        ("https://api.anthropic.com/v1", "*.anthropic.com", None),
        ("https://api.anthropic.com/v1", "thropic.com", PROXY),
        ("https://api.anthropic.com/v1", "API.Anthropic.com:443", None),
        ("https://api.anthropic.com/v1", "api.anthropic.com:8443", PROXY),
        ("https://api.anthropic.com/v1", "*", None),
        ("https://10.1.2.3/", "10.0.0.0/8", None),
        ("https://10.1.2.3/", "10.1.2.4", PROXY),
        ("https://[fd00::1]/", "[fd00::1]", None),
        ("https://[fd00::1]:8443/", "[fd00::1]:8443,fd00::/16", None),
        ("https://localhost:9/", "", None),
        ("https://sim.localhost/", "", None),
        ("https://127.0.0.9/", "", None),
        ("https://[::1]/", "", None),
        ("http://api.example/", "", None),
        ("unix:///x", "", None),
    ],
)
def test_no_proxy_is_read_as_usual(url: str, bypassed: str, through: str | None) -> None:
    assert Proxies(https=PROXY, bypassed=bypassed).of(url) == through


def test_a_proxy_is_a_url_with_or_without_its_scheme() -> None:
    assert checked_proxy("proxy:3128") == PROXY
    assert checked_proxy("https://u:p@proxy") == "https://u:p@proxy"
    assert "p@proxy" not in repr(Proxies(https="https://u:p@proxy"))
    for wrong in ("socks5://proxy", "http://", "http://proxy:x"):
        with pytest.raises(ValueError, match="proxy"):
            checked_proxy(wrong)
