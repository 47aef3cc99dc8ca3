"""What a JWT may and may not say: algorithms, headers, times."""

import base64
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.identity.jwts import MAX_LENGTH, NotAccepted, check_claims, looks_like_jwt, read_jwt, verify
from core.identity.verification_keys import VerificationKey, parse_jwks, parse_pem
from core.tenancy.principal import Unauthenticated
from tests.core.identity.idp import AUDIENCE, ISSUER, claims, jwks, new_key, sign

PRIVATE = {name: new_key(name) for name in ("RS256", "ES256", "EdDSA")}
NOW_S = 1_800_000_000


def public(name: str) -> VerificationKey:
    (key,) = parse_jwks(jwks(PRIVATE[name]))
    return key


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(header: Any, payload: Any = None, signature: bytes = b"x") -> str:
    return f"{b64(header)}.{b64(claims() if payload is None else payload)}.{b64(signature)}"


@pytest.mark.parametrize(("key", "algorithm"), [("RS256", "RS256"), ("ES256", "ES256"), ("EdDSA", "Ed25519")])
def test_a_signed_jwt_is_read_and_verified(key: str, algorithm: str) -> None:
    jwt = read_jwt(sign(PRIVATE[key], algorithm))
    assert (jwt.algorithm, jwt.kid, jwt.issuer, jwt.audiences) == (algorithm, "k1", ISSUER, (AUDIENCE,))
    assert verify(jwt, public(key))["sub"] == "ada@acme.example"


def test_the_older_name_of_ed25519_is_accepted() -> None:
    key: Any = PRIVATE["EdDSA"]
    signed = f"{b64({'alg': 'EdDSA', 'kid': 'k1'})}.{b64(claims())}"
    jwt = read_jwt(f"{signed}.{b64(key.private_key.sign(signed.encode()))}")
    assert verify(jwt, public("EdDSA"))["aud"] == AUDIENCE


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": ""},
        {"alg": None},
        {"alg": ["RS256"]},
        {"alg": "HS256"},
        {"alg": "HS512"},
        {"alg": "RS384"},
        {"alg": "PS256"},
        {"alg": "ES384"},
        {"alg": "ES256K"},
        {"alg": "RSA-OAEP", "enc": "A256GCM"},
        {"alg": "RS256", "crit": ["b64"], "b64": False},
        {"alg": "RS256", "crit": ["exp"]},
        {"alg": "RS256", "typ": "logout+jwt"},
        {"alg": "RS256", "typ": 7},
        {"alg": "RS256", "kid": 7},
        {},
        [],
        "RS256",
    ],
)
def test_a_header_that_is_not_accepted(header: Any) -> None:
    with pytest.raises(NotAccepted):
        read_jwt(unsigned(header))


def test_a_public_key_is_no_secret_of_hs256() -> None:
    pem = PRIVATE["RS256"].as_pem(private=False)  # type: ignore[union-attr]
    signed = f"{b64({'alg': 'HS256', 'typ': 'JWT'})}.{b64(claims())}"
    with pytest.raises(NotAccepted):
        read_jwt(f"{signed}.{b64(hmac.digest(pem, signed.encode(), 'sha256'))}")


@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("claimed", ["RS256", "ES256", "Ed25519"])
def test_a_key_verifies_its_own_algorithm_alone(name: str, claimed: str) -> None:
    own = {"RS256": "RS256", "ES256": "ES256", "EdDSA": "Ed25519"}[name]
    jwt = read_jwt(
        sign(PRIVATE[name], own).replace(b64({"alg": own, "typ": "JWT", "kid": "k1"}), b64({"alg": claimed}))
    )
    with pytest.raises(NotAccepted):
        verify(jwt, public(name))


@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
def test_another_key_of_the_same_kind_does_not_verify(name: str) -> None:
    own = "Ed25519" if name == "EdDSA" else name
    with pytest.raises(NotAccepted):
        verify(read_jwt(sign(new_key(name), own)), public(name))


@pytest.mark.parametrize("header", [{"jku": "https://evil.example/"}, {"x5u": "https://evil.example/"}])
def test_keys_and_urls_in_the_header_are_ignored(header: dict[str, str]) -> None:
    mine = new_key("RS256")
    with pytest.raises(NotAccepted):
        verify(read_jwt(sign(mine, "RS256", None, **header)), public("RS256"))
    with pytest.raises(NotAccepted):
        verify(read_jwt(sign(mine, "RS256", None, jwk=mine.as_dict(private=False))), public("RS256"))
    assert verify(read_jwt(sign(PRIVATE["RS256"], "RS256", None, **header)), public("RS256"))


def test_a_changed_payload_does_not_verify() -> None:
    header, _, signature = sign(PRIVATE["ES256"], "ES256").split(".")
    jwt = read_jwt(f"{header}.{b64(claims(sub='eve'))}.{signature}")
    with pytest.raises(NotAccepted):
        verify(jwt, public("ES256"))


@pytest.mark.parametrize(
    "payload",
    [
        claims(iss=None),
        claims(iss=""),
        claims(iss=7),
        claims(iss="x" * 501),
        claims(aud=None),
        claims(aud=[]),
        claims(aud=[7]),
        claims(aud={"naka": True}),
        claims(aud=[f"a{number}" for number in range(11)]),
        [],
        7,
    ],
)
def test_a_jwt_that_names_no_issuer_or_audience(payload: Any) -> None:
    with pytest.raises(NotAccepted):
        read_jwt(unsigned({"alg": "RS256"}, payload))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eyJ",
        "a.b.c",
        "eyJ.eyJ",
        "eyJ.eyJ.eyJ.eyJ",
        unsigned({"alg": "RS256"}) + "é",
        unsigned({"alg": "RS256", "x": "y" * MAX_LENGTH}),
        f"eyJ{b64(b'[' * 3000)}.{b64(b'[' * 3000)}.x",
        f"{b64({'alg': 'RS256'})}.{b64(b'{' + b'%s' % (b'[' * 4000))}.x",
        f"{b64({'alg': 'RS256'})}=.{b64(claims())}.x",
        f"{b64({'alg': 'RS256'})}.{b64(bytes([0xFF, 0xFE]))}.x",
    ],
)
def test_what_is_no_jwt(text: str) -> None:
    with pytest.raises(NotAccepted):
        read_jwt(text)


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_breaks_the_reader(header: str, payload: str) -> None:
    text = f"{b64(header.encode('utf-8', 'surrogatepass'))}.{b64(payload.encode('utf-8', 'surrogatepass'))}.x"
    for each in (text, f"eyJ{header}.{payload}.x"):
        with pytest.raises(NotAccepted):
            read_jwt(each)


def test_a_key_does_not_look_like_a_jwt() -> None:
    assert not looks_like_jwt("nk_live_0123456789abcdef")
    assert not looks_like_jwt("nk_tmp_eyJhbGciOiJI.a.b")
    assert looks_like_jwt(sign(PRIVATE["ES256"], "ES256"))


@pytest.mark.parametrize(
    ("changed", "is_valid"),
    [
        ({}, True),
        ({"exp": NOW_S - 29}, True),
        ({"exp": NOW_S - 30}, False),
        ({"exp": NOW_S - 29.5}, True),
        ({"nbf": NOW_S + 30}, True),
        ({"nbf": NOW_S + 31}, False),
        ({"iat": NOW_S + 30}, True),
        ({"iat": NOW_S + 31}, False),
        ({"iat": NOW_S - 10**6}, True),
        ({"exp": None}, False),
        ({"exp": 0}, False),
        ({"exp": "1900000000"}, False),
        ({"exp": True}, False),
        ({"exp": float("nan")}, False),
        ({"exp": float("inf")}, False),
        ({"exp": [NOW_S + 60]}, False),
        ({"nbf": "now"}, False),
        ({"iat": None}, True),
        ({"exp": 10**40}, True),
    ],
)
def test_times_with_a_leeway_of_30_s(changed: dict[str, Any], *, is_valid: bool) -> None:
    payload = {name: value for name, value in {"exp": NOW_S + 60, **changed}.items() if value is not None}
    if is_valid:
        assert check_claims(payload, now_s=NOW_S, leeway_s=30) <= 253_402_300_800
    else:
        with pytest.raises(Unauthenticated):
            check_claims(payload, now_s=NOW_S, leeway_s=30)


def test_an_expiry_has_the_leeway() -> None:
    assert check_claims({"exp": NOW_S + 60}, now_s=NOW_S, leeway_s=30) == NOW_S + 90


def test_a_pem_verifies_whatever_the_id_is() -> None:
    key = parse_pem(PRIVATE["RS256"].as_pem(private=False).decode())  # type: ignore[union-attr]
    assert verify(read_jwt(sign(PRIVATE["RS256"], "RS256", None, kid="anything")), key)
