"""The headers of a Messages request that reach the provider, and those of its answer that reach the client. Pure.

What names an account is replaced or dropped: credentials, workspace and profile on the way there; the operator's
organization and shared rate limits on the way back (source: Anthropic's gateway protocol).
"""

from collections.abc import Mapping

from starlette.types import Scope

from api.gateway.upstream.pool import Header

_FORWARDED = (b"anthropic-", b"x-stainless-", b"x-claude-code-")
"""The starts of names that are sent on."""
_ALSO_FORWARDED = frozenset({b"accept", b"user-agent", b"x-app"})
_NOT_FORWARDED = frozenset({b"anthropic-workspace-id", b"anthropic-user-profile-id", b"anthropic-organization-id"})
_RETURNED = "anthropic-"
_NOT_RETURNED = (
    "anthropic-organization-id",
    "anthropic-workspace-id",
    "anthropic-ratelimit-",
    "anthropic-priority-",
    "anthropic-fast-",
)


def forwarded(scope: Scope) -> list[Header]:
    """The headers of a request that the provider receives."""
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if (name.startswith(_FORWARDED) and name not in _NOT_FORWARDED) or name in _ALSO_FORWARDED
    ]
    return [*headers, (b"content-type", b"application/json")]


def target(path: bytes, scope: Scope) -> bytes:
    """The path and query that the provider receives."""
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


def returned(headers: Mapping[str, str]) -> list[Header]:
    """The headers of the provider's answer that the client receives, beside those of the content."""
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if name.startswith(_RETURNED) and not name.startswith(_NOT_RETURNED)
    ]
