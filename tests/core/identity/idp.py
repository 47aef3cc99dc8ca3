"""A product's identity provider: signs JWTs, and serves its public keys as well or as badly as a test wants."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, serialize_compact

ISSUER = "https://login.acme.example/"
AUDIENCE = "naka"
_SIGNING = JWSRegistry(algorithms=["RS256", "ES256", "Ed25519", "HS256"], strict_check_header=False)


def new_key(algorithm: str, kid: str | None = "k1") -> Key:
    """A private key."""
    parameters: Any = {} if kid is None else {"kid": kid}
    match algorithm:
        case "RS256":
            return RSAKey.generate_key(2048, parameters)
        case "ES256":
            return ECKey.generate_key("P-256", parameters)
        case _:
            return OKPKey.generate_key("Ed25519", parameters)


def pem_of(key: Key) -> str:
    """The public key in PEM."""
    assert not isinstance(key, OctKey)
    return key.as_pem(private=False).decode().strip()


def claims(**changed: Any) -> dict[str, Any]:
    """Claims that are valid for an hour; None leaves one out."""
    now_s = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada@acme.example", "iat": now_s, "exp": now_s + 3600, **changed}
    return {name: value for name, value in found.items() if value is not None}


def sign(key: Key | OctKey, algorithm: str, payload: dict[str, Any] | None = None, **header: Any) -> str:
    """A JWT. `kid` is the key's unless the header says otherwise; None leaves it out."""
    kid = key.as_dict().get("kid")
    named = {"alg": algorithm, "typ": "JWT", "kid": kid, **header}
    named = {name: value for name, value in named.items() if value is not None}
    return serialize_compact(named, msgspec.json.encode(claims() if payload is None else payload), key, None, _SIGNING)


def jwks(*keys: Key | dict[str, Any]) -> bytes:
    """The public keys as a document."""
    listed = [each if isinstance(each, dict) else each.as_dict(private=False) for each in keys]
    return msgspec.json.encode({"keys": listed})


class JwksServer:
    """Serves `body` with `status`, after `delay_s`; counts the requests. `location`: a redirect's target."""

    def __init__(self) -> None:
        self.body: bytes = jwks()
        self.status = 200
        self.delay_s = 0.0
        self.location = ""
        self.drips = False
        self.count = 0
        self.paths: list[str] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        self.count += 1
        self.paths.append(handler.path)
        time.sleep(self.delay_s)
        body = self.body
        handler.send_response(self.status)
        if self.location:
            handler.send_header("location", self.location)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        if self.drips:  # a byte now and then, for as long as the client reads
            for each in body:
                handler.wfile.write(bytes([each]))
                handler.wfile.flush()
                time.sleep(0.05)
        else:
            handler.wfile.write(body)


@contextmanager
def serve_jwks() -> Iterator[JwksServer]:
    """A server on loopback."""
    state = JwksServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                state.answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Writes nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/jwks"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
