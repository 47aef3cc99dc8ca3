"""Keys of a JWKS and in PEM: which are used, and for what."""

from contextlib import suppress

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from core.identity.verification_keys import ALGORITHMS, NotAKeySet, find_key, parse_jwks, parse_pem
from tests.core.identity.idp import jwks, new_key

RSA, EC, ED = (new_key(each, each) for each in ("RS256", "ES256", "EdDSA"))


def test_each_key_is_for_one_algorithm() -> None:
    keys = parse_jwks(jwks(RSA, EC, ED))
    assert [sorted(each.algorithms) for each in keys] == [["RS256"], ["ES256"], ["Ed25519", "EdDSA"]]
    found = {(kid, name): find_key(keys, kid, name) for kid in ("RS256", "ES256", "EdDSA") for name in ALGORITHMS}
    assert {names for names, key in found.items() if key is not None} == {
        ("RS256", "RS256"),
        ("ES256", "ES256"),
        ("EdDSA", "EdDSA"),
        ("EdDSA", "Ed25519"),
    }


def test_without_an_id_the_only_key_of_the_algorithm_is_used() -> None:
    keys = parse_jwks(jwks(RSA, EC, new_key("ES256", "other")))
    assert find_key(keys, None, "RS256") is keys[0]
    assert find_key(keys, None, "ES256") is None
    assert find_key(keys, "none of these", "RS256") is None


def entry(key: object = RSA, **changed: object) -> dict[str, object]:
    made = {**key.as_dict(private=False), **changed}  # type: ignore[attr-defined]
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "RS256"},
        entry(use="enc"),
        entry(key_ops=["encrypt"]),
        entry(key_ops="verify"),
        entry(alg="RS512"),
        entry(alg="HS256"),
        entry(d="AQAB"),
        entry(alg=["RS256"]),
        entry(kid=7),
        entry(kty=["RSA"]),
        entry(n=None),
        entry(n=[1]),
        entry(e="!"),
        entry(n="A" * 60_000),
        entry(e="_" * 680),  # 4080 bits: each verification would cost as much as a signature
        entry(n=new_key("ES256").as_dict()["x"]),
        entry(EC, crv="P-384"),
        entry(EC, x="AAAA"),
        entry(ED, crv="Ed448"),
        entry(ED, crv="X25519"),
        {},
        7,
        "key",
        None,
    ],
)
def test_any_other_entry_is_ignored(jwk: object) -> None:
    document = msgspec.json.encode({"keys": [jwk, entry(kid="good")]})
    assert [each.kid for each in parse_jwks(document)] == ["good"]


def test_a_large_key_is_ignored() -> None:
    number = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    pem = rsa.RSAPublicNumbers(number.e, number.n << 4096 | 1).public_key()
    with pytest.raises(Invalid, match="2048 to 4096"):
        parse_pem(pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def test_only_the_first_keys_count() -> None:
    assert len(parse_jwks(jwks(*(entry(EC, kid=str(number)) for number in range(90))))) == 50


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"7", b"<html>", b'{"keys": {}}', b"{}", b'{"keys": ' + b"[" * 30_000, b"\xff", b"\x1f\x8b"],
)
def test_what_is_no_key_set(document: bytes) -> None:
    with pytest.raises(NotAKeySet):
        parse_jwks(document)


@given(st.binary(max_size=200))
def test_no_document_breaks_the_parser(document: bytes) -> None:
    with suppress(NotAKeySet):
        assert isinstance(parse_jwks(document), list)


@pytest.mark.parametrize("key", [RSA, EC, ED])
def test_a_pem_is_the_same_key_as_in_a_jwks(key: object) -> None:
    pem = key.as_pem(private=False).decode()  # type: ignore[attr-defined]
    (listed,) = parse_jwks(jwks(entry(key)))
    assert parse_pem(pem).members == listed.members
    assert parse_pem(pem).algorithms == listed.algorithms


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (RSA.as_pem(private=True).decode(), "private key"),  # type: ignore[union-attr]
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "not a public key"),
        ("", "not a public key"),
        ("\ud800", "not a public key"),
        (
            ec.generate_private_key(ec.SECP384R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode(),
            "P-256",
        ),
    ],
)
def test_what_is_no_public_key_of_ours(pem: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        parse_pem(pem)
