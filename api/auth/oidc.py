"""The client of the OpenID Connect provider: discovery, authorization code with PKCE, and the check of the ID token.

Authlib makes the requests and checks the claims; joserfc the signature, with asymmetric algorithms only. Every call is
bounded in time and bytes, follows no redirect, and in production goes to https only. One fetch of its metadata or keys
serves all who wait. The provider down, or answering nonsense: ProviderUnavailable, for some seconds without asking it
again. A token that does not hold: RefusedByProvider.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec

from core.errors import NakaError, Unavailable
from core.logs import get_logger
from core.resilience.deadline import unbounded
from core.settings import Settings

_TIMEOUT_S = 10
"""Of one step: a code's exchange may fetch the provider's keys, too."""
_MAX_BYTES = 256 * 1024
_METADATA_S = 3600
_KEYS_EVERY_S = 10
"""An unknown key id fetches the provider's keys again, at most this often."""
_FAILED_S = 5.0
"""After a failed fetch the provider is not asked again for so long."""
_LEEWAY_S = 60
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
_DEFAULT_ALGORITHM = "RS256"
"""OpenID Connect Core 1.0, section 2: what a provider uses that names none."""
_FAULTS = (httpx2.HTTPError, TimeoutError, OSError, ValueError, KeyError, TypeError)
"""Of a provider that does not answer, or not as OpenID Connect says."""
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")

log = get_logger(__name__)


class ProviderUnavailable(Unavailable):
    """The identity provider does not answer, or not as OpenID Connect says."""

    def __init__(self) -> None:
        super().__init__("The identity provider does not answer. Try again, or sign in with a key.", retry_after_s=5)


class RefusedByProvider(NakaError):
    """The provider gave no token, or one that does not hold."""

    def __init__(self) -> None:
        super().__init__("The identity provider did not confirm this sign-in. Start again.")


@dataclass(frozen=True, slots=True)
class Secrets:
    """The random values that bind a sign-in: to our request (`state`), to the token (`nonce`), to the code (PKCE)."""

    state: str
    nonce: str
    verifier: str


class OidcClient:
    """One per process. `transport`: in place of the network, for tests."""

    def __init__(self, settings: Settings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._given = transport
        self._transport: httpx2.AsyncBaseTransport | None = None
        self._metadata = _Fetched(self._fetch_metadata)
        self._keys = _Fetched(self._fetch_keys)

    @property
    def is_configured(self) -> bool:
        """Whether people can sign in at a provider."""
        return bool(self._settings.oidc_issuer)

    async def begin(self, redirect_uri: str) -> tuple[str, Secrets]:
        """The provider's address to go to, and the secrets to keep. Raises ProviderUnavailable."""
        made = Secrets(*(secrets.token_urlsafe(32) for _ in range(3)))
        metadata = await self._metadata.get(_METADATA_S)
        async with self._client(redirect_uri, metadata) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"], state=made.state, nonce=made.nonce, code_verifier=made.verifier
            )
        return str(url), made

    async def finish(self, code: str, redirect_uri: str, kept: Secrets) -> dict[str, Any]:
        """The verified claims of the person. Raises RefusedByProvider, ProviderUnavailable."""
        from authlib.common.errors import AuthlibBaseError  # noqa: PLC0415 - most requests need no provider
        from joserfc.errors import JoseError  # noqa: PLC0415

        metadata = await self._metadata.get(_METADATA_S)
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._client(redirect_uri, metadata) as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=kept.verifier,
                    redirect_uri=redirect_uri,
                )
                claims = await self._verify(token, metadata, kept.nonce)
                if "email" not in claims and "userinfo_endpoint" in metadata:
                    told = (await client.get(self._checked(metadata["userinfo_endpoint"]))).json()
                    claims |= told if isinstance(told, dict) and told.get("sub") == claims["sub"] else {}
        except (AuthlibBaseError, JoseError) as error:
            log.warning("oidc_refused", error=type(error).__name__)
            raise RefusedByProvider from error
        except _FAULTS as error:
            log.warning("oidc_unavailable", error=type(error).__name__)
            raise ProviderUnavailable from error
        return claims

    async def close(self) -> None:
        """Ends the fetches in progress and closes the connections."""
        for fetched in (self._metadata, self._keys):
            await fetched.stop()
        if self._transport is not None:
            await self._transport.aclose()

    async def _verify(self, token: Mapping[str, Any], metadata: dict[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of the ID token. Raises RefusedByProvider, and what joserfc and httpx raise."""
        from authlib.oidc.core import CodeIDToken  # noqa: PLC0415 - as above
        from joserfc import jwt  # noqa: PLC0415
        from joserfc.errors import InvalidKeyIdError  # noqa: PLC0415
        from joserfc.jws import JWSRegistry  # noqa: PLC0415

        value = token.get("id_token")
        if not isinstance(value, str):
            raise RefusedByProvider
        offered = metadata.get("id_token_signing_alg_values_supported") or [_DEFAULT_ALGORITHM]
        accepted = sorted(_ALGORITHMS & set(offered))
        if not accepted:  # joserfc takes an empty list for its own choice, with HS256
            raise RefusedByProvider
        registry = JWSRegistry(algorithms=accepted, strict_check_header=False)
        try:
            decoded = jwt.decode(value, await self._keys.get(_METADATA_S), registry=registry)
        except InvalidKeyIdError:
            decoded = jwt.decode(value, await self._keys.get(_KEYS_EVERY_S), registry=registry)
        wanted: Any = {
            "iss": {"essential": True, "value": self._settings.oidc_issuer},
            "aud": {"essential": True, "value": self._settings.oidc_client_id},
            "nonce": {"essential": True, "value": nonce},
        }
        params = {
            "nonce": nonce,
            "client_id": self._settings.oidc_client_id,
            "access_token": token.get("access_token"),
        }
        claims = CodeIDToken(decoded.claims, decoded.header, wanted, params)
        claims.validate(leeway=_LEEWAY_S)
        return dict(claims)

    async def _fetch_metadata(self) -> dict[str, Any]:
        """Fetches the provider's metadata. Raises ValueError for that of another issuer, and what httpx raises."""
        issuer = self._settings.oidc_issuer
        found = await self._json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found["issuer"] != issuer:
            raise ValueError("the metadata is another issuer's")
        for name in _ENDPOINTS:
            self._checked(found[name])
        return found

    async def _fetch_keys(self) -> Any:
        """Fetches the provider's public keys. Raises what joserfc and httpx raise."""
        from joserfc.jwk import KeySet  # noqa: PLC0415 - as above

        metadata = await self._metadata.get(_METADATA_S)
        return KeySet.import_key_set(await self._json(metadata["jwks_uri"]))  # type: ignore[arg-type]

    async def _json(self, url: str) -> dict[str, Any]:
        async with asyncio.timeout(_TIMEOUT_S), httpx2.AsyncClient(**self._bounds()) as client:
            answer = await client.get(self._checked(url))
            answer.raise_for_status()
            return msgspec.json.decode(answer.content, type=dict[str, Any])

    def _checked(self, url: object) -> str:
        """An endpoint of the metadata. Raises ValueError for another scheme than https, in development than http."""
        schemes = ("https://",) if self._settings.is_production else ("https://", "http://")
        if not isinstance(url, str) or not url.startswith(schemes):
            raise ValueError("the endpoint is not https")
        return url

    def _client(self, redirect_uri: str, metadata: dict[str, Any]) -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client  # noqa: PLC0415 - as above

        secret = self._settings.oidc_client_secret.get_secret_value()
        offered = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        method = "client_secret_basic" if "client_secret_basic" in offered else "client_secret_post"
        return AsyncOAuth2Client(
            self._settings.oidc_client_id,
            secret or None,
            scope=" ".join(self._settings.oidc_scopes),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            token_endpoint_auth_method=method if secret else "none",
            **self._bounds(),
        )

    def _bounds(self) -> dict[str, Any]:
        if self._transport is None:
            proxy = self._settings.proxies.of(self._settings.oidc_issuer)
            self._transport = _Bounded(self._given or httpx2.AsyncHTTPTransport(proxy=proxy, trust_env=False))
        shared = _Shared(self._transport)
        return {"transport": shared, "timeout": _TIMEOUT_S, "follow_redirects": False, "trust_env": False}


class _Fetched:
    """A document of the provider, fetched once for all requests that wait for it. `fetch` is bounded in time."""

    def __init__(self, fetch: Callable[[], Awaitable[Any]]) -> None:
        self._fetch = fetch
        self._value: Any = None
        self._at_s = self._failed_s = float("-inf")
        self._task: asyncio.Task[Any] | None = None

    async def get(self, max_age_s: float) -> Any:
        """Returns what is at most so old. Raises ProviderUnavailable, after a failure at once for `_FAILED_S`."""
        now_s = time.monotonic()
        if now_s - self._at_s <= max_age_s:
            return self._value
        if self._task is None:
            if now_s - self._failed_s < _FAILED_S:
                raise ProviderUnavailable
            with unbounded():  # others with later deadlines may wait for it
                self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._note_end)
        return await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Ends a fetch in progress."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> Any:
        from joserfc.errors import JoseError  # noqa: PLC0415 - as above

        try:
            self._value = await self._fetch()
        except (*_FAULTS, JoseError) as error:
            self._failed_s = time.monotonic()
            log.warning("oidc_unavailable", error=type(error).__name__)
            raise ProviderUnavailable from error
        self._at_s = time.monotonic()
        return self._value

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # retrieved, although those who waited may have left


class _Bounded(httpx2.AsyncBaseTransport):
    """Answers of at most `_MAX_BYTES`, not compressed."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request."""
        request.headers["accept-encoding"] = "identity"
        answer = await self._inner.handle_async_request(request)
        if answer.headers.get("content-encoding", "identity") != "identity":
            await answer.aclose()
            raise httpx2.DecodingError("the answer is compressed", request=request)
        answer.stream = _BoundedStream(answer.stream, request)
        return answer

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._inner.aclose()


class _Shared(httpx2.AsyncBaseTransport):
    """A transport that outlives the client that uses it."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request."""
        return await self._inner.handle_async_request(request)


class _BoundedStream(httpx2.AsyncByteStream):
    """Raises ReadError past `_MAX_BYTES`."""

    def __init__(self, inner: Any, request: httpx2.Request) -> None:
        self._inner = inner
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > _MAX_BYTES:
                raise httpx2.ReadError("the answer is too long", request=self._request)
            yield piece

    async def aclose(self) -> None:
        """Closes the answer."""
        await self._inner.aclose()
