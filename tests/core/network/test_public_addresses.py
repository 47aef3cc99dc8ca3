"""Public addresses only, in every spelling."""

import socket
from typing import Any

import pytest
from aiohttp.abc import ResolveResult

from core.errors import Invalid
from core.network.public_addresses import NotPublic, PublicResolver, is_public, literal, public_socket
from core.network.tenant_urls import checked_url

PUBLIC = ("93.184.216.34", "8.8.8.8", "172.15.255.255", "172.32.0.0", "2606:4700:4700::1111", "2a00:1450:4001::64")
REFUSED = (
    *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254", "172.16.0.1"),  # noqa: S104
    *("172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "5f00::1"),
    *("2001:db8::1", "3fff::1", "2001:2::1", "2001:10::1", "2001:20::1"),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "::127.0.0.1", "::8.8.8.8"),
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:ffff::1"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::", "2001:0:7f00:1::", "2001::ce49:7601:e866:efff"),
    *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1"),
)
SPELT = {
    "127.0.0.1": ("127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.1."),
    "169.254.169.254": ("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662"),
    "0.0.0.0": ("0", "0x0", "00000000000"),  # noqa: S104
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_called(address: str) -> None:
    assert is_public(address)
    host = f"[{address}]" if ":" in address else address
    assert checked_url(f"https://{host}/x", production=True)
    public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))).close()


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused_when_it_is_set_and_when_it_is_connected_to(address: str) -> None:
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Invalid):
        checked_url(f"https://{host}/x", production=True)
    with pytest.raises(NotPublic):
        public_socket((socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 443, 0, 0)))


@pytest.mark.parametrize(("address", "spelling"), [(one, each) for one, spelt in SPELT.items() for each in spelt])
def test_every_spelling_is_the_address_that_the_c_library_reads(address: str, spelling: str) -> None:
    assert literal(spelling) == address
    with pytest.raises(Invalid):
        checked_url(f"https://{spelling}/x", production=True)


@pytest.mark.parametrize(
    "url",
    [
        *("https://127。0。0。1/", "https://①②⑦.0.0.1/", "https://%31%32%37.0.0.1/", "https://[fe80::1%25eth0]/"),
        *("https://a.example\\@127.0.0.1/", "https://@a.example/", "https://127.0.0.1:443@a.example/"),
        *("https://intranet/", "https://LOCALHOST/", "https://db.internal./", "https://printer.local/"),
        *("https://a.example:22/", "https://a.example:25/", "https://a.example:80/"),
    ],
)
def test_other_ways_in_are_refused(url: str) -> None:
    with pytest.raises(Invalid):
        checked_url(url, production=True)


@pytest.mark.parametrize("host", ["a.example", "deadbeef.example", "1.2.3.4.example", "xn--bcher-kva.example", "7.de"])
def test_a_name_is_no_literal(host: str) -> None:
    assert literal(host) is None
    assert checked_url(f"https://{host}:8443/x", production=True)


async def test_a_name_is_resolved_to_its_public_addresses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["10.0.0.1", "64:ff9b::7f00:1", "93.184.216.34"]
    resolver = PublicResolver()

    async def found(*_: Any) -> list[ResolveResult]:
        return [ResolveResult(hostname="a", host=one, port=443, family=0, proto=0, flags=0) for one in answers]

    monkeypatch.setattr(resolver, "_inner", type("Dns", (), {"resolve": staticmethod(found)}))
    assert [one["host"] for one in await resolver.resolve("a.example", 443)] == ["93.184.216.34"]
    answers.pop()
    with pytest.raises(NotPublic):
        await resolver.resolve("a.example", 443)
