"""The simulated identity provider refuses what the standards refuse, so that a client that passes is a sound one."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import KeySet

from sandbox.oidc.app import create_app
from sandbox.oidc.people import Person

ISSUER = "http://provider.test"
BACK = "http://127.0.0.1:1/back"
VERIFIER = "v" * 43
ASKED = {
    "client_id": "naka",
    "redirect_uri": BACK,
    "response_type": "code",
    "scope": "openid email",
    "state": "s1",
    "nonce": "n1",
    "code_challenge": create_s256_code_challenge(VERIFIER),
    "code_challenge_method": "S256",
}
EXCHANGE = {"grant_type": "authorization_code", "redirect_uri": BACK, "code_verifier": VERIFIER}


@pytest.fixture
def http() -> httpx2.AsyncClient:
    app = create_app("naka", "secret", issuer=ISSUER, people=[Person("ada@acme.example", "Ada")])
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=ISSUER)


async def code_of(http: httpx2.AsyncClient) -> str:
    answer = await http.post("/authorize", params=ASKED, data={"person": "ada@acme.example"})
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (query["state"], query["iss"]) == (["s1"], [ISSUER])
    return query["code"][0]


async def exchanged(http: httpx2.AsyncClient, **changed: Any) -> httpx2.Response:
    auth = changed.pop("auth", ("naka", "secret"))
    return await http.post("/token", data=EXCHANGE | changed, **({} if auth is None else {"auth": auth}))


async def test_a_code_becomes_a_token_once(http: httpx2.AsyncClient) -> None:
    code = await code_of(http)
    answer = await exchanged(http, code=code)
    assert answer.status_code == 200
    keys = KeySet.import_key_set((await http.get("/jwks")).json())
    claims = jwt.decode(answer.json()["id_token"], keys, algorithms=["RS256"]).claims
    assert {name: claims[name] for name in ("iss", "aud", "nonce", "email", "email_verified")} == {
        "iss": ISSUER,
        "aud": "naka",
        "nonce": "n1",
        "email": "ada@acme.example",
        "email_verified": True,
    }
    again = await exchanged(http, code=code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    access = answer.json()["access_token"]
    told = await http.get("/userinfo", headers={"authorization": f"Bearer {access}"})
    assert told.json()["sub"] == claims["sub"]
    assert (await http.get("/userinfo")).status_code == 401


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:2/back"}, "invalid_grant"),
        ({"code": "made-up"}, "invalid_grant"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"auth": ("naka", "wrong")}, "invalid_client"),
        ({"auth": None}, "invalid_client"),
    ],
)
async def test_an_exchange_that_is_refused(http: httpx2.AsyncClient, changed: dict[str, Any], error: str) -> None:
    answer = await exchanged(http, **({"code": await code_of(http)} | changed))
    assert answer.json()["error"] == error
    assert answer.status_code == (401 if error == "invalid_client" else 400)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"client_id": "another"}, None),
        ({"redirect_uri": "https://evil.example/"}, None),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "email"}, "invalid_scope"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
    ],
)
async def test_a_request_that_is_refused(http: httpx2.AsyncClient, changed: dict[str, str], error: str | None) -> None:
    answer = await http.get("/authorize", params=ASKED | changed)
    if error is None:
        assert answer.status_code == 400, "a wrong client's address gets no answer"
    else:
        assert parse_qs(urlsplit(answer.headers["location"]).query)["error"] == [error]


async def test_the_metadata_names_what_is_there(http: httpx2.AsyncClient) -> None:
    metadata = (await http.get("/.well-known/openid-configuration")).json()
    assert metadata["issuer"] == ISSUER
    before = (await http.get(metadata["jwks_uri"])).json()["keys"]
    await http.post("/_sim/rotate", json={"keep": True})
    after = (await http.get(metadata["jwks_uri"])).json()["keys"]
    assert [key["kid"] for key in after[:-1]] == [key["kid"] for key in before]
    assert all(set(key) <= {"kty", "kid", "use", "alg", "n", "e"} for key in after), "public parts only"
