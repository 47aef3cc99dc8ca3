"""The principal of a request and its scopes. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from core.errors import NakaError


class Scope(StrEnum):
    """The permissions of a key. `platform:admin` includes the tenant's scopes, `tenant:admin` includes `tenant:read`.

    `chat:as-user`: each request names the end user that it acts for. `tenant:read`: the usage of the whole tenant.
    `tenant:members`: who else signs in to the tenant, which `tenant:admin` does not include.
    """

    CHAT = "chat"
    CHAT_AS_USER = "chat:as-user"
    USAGE_READ = "usage:read"
    TENANT_READ = "tenant:read"
    TENANT_ADMIN = "tenant:admin"
    TENANT_MEMBERS = "tenant:members"
    PLATFORM_ADMIN = "platform:admin"


_INCLUDED_IN = {
    Scope.TENANT_READ: frozenset({Scope.TENANT_ADMIN, Scope.PLATFORM_ADMIN}),
    Scope.TENANT_ADMIN: frozenset({Scope.PLATFORM_ADMIN}),
    Scope.TENANT_MEMBERS: frozenset({Scope.PLATFORM_ADMIN}),
}


def includes(scopes: Collection[str], scope: str) -> bool:
    """Whether `scopes` contain a scope, or one that includes it."""
    return scope in scopes or any(each in scopes for each in _INCLUDED_IN.get(Scope(scope), ()))


class Unauthenticated(NakaError):
    """The key is missing, malformed, unknown, expired or revoked; the message does not say which.

    `tenant_id`: of a key that is known and ended, for the tenant's count of refusals.
    """

    def __init__(self, message: str = "A valid API key is required.", *, tenant_id: UUID | None = None) -> None:
        super().__init__(message)
        self.tenant_id = tenant_id


class Forbidden(NakaError):
    """The key is valid, but it or its tenant's plan does not allow the request. `code` is the reason, for programs."""

    def __init__(self, message: str, *, code: str = "forbidden") -> None:
        super().__init__(message)
        self.code = code


class UserDisabled(Forbidden):
    """The user that the request acts for was disabled or erased. `tenant_id`: for the tenant's count of refusals."""

    def __init__(self, tenant_id: UUID | None = None) -> None:
        super().__init__("This user is disabled. An admin of the account can enable it.", code="user_disabled")
        self.tenant_id = tenant_id


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a valid key, or the user that it acts for: scopes, and the models that it may use (None: any).

    Only of a short-lived token or a JWT: `tags` of all its requests, and `budget`, what the requests of `token_id` may
    use in its life, by meter (spend in micro-USD).
    """

    tenant_id: UUID
    user_id: UUID
    key_id: UUID
    scopes: frozenset[str]
    models: frozenset[str] | None = None
    expires_at_ms: int | None = None
    key_prefix: str = field(default="", compare=False)
    """The part of the key shown in logs."""
    tags: tuple[tuple[str, str], ...] = ()
    token_id: str = ""
    budget: tuple[tuple[str, int], ...] = ()
    is_delegated: bool = False
    """Whether a key acts for a user here: a short-lived token, a JWT, a user that the request names."""

    def may(self, scope: Scope) -> bool:
        """Whether the key has `scope`, or one that includes it."""
        return includes(self.scopes, scope)

    def require(self, scope: Scope) -> None:
        """Raises Forbidden when the key lacks `scope`."""
        if self.may(scope):
            return
        raise Forbidden(f"This key lacks the permission {scope.value}.")

    def require_any(self, *scopes: Scope) -> None:
        """Raises Forbidden when the key has none of `scopes`; the message names the first."""
        if self.scopes.isdisjoint(scopes):
            self.require(scopes[0])

    def allows_model(self, model: str) -> bool:
        """Whether the key may use the model."""
        return self.models is None or model in self.models

    def require_model(self, model: str) -> None:
        """Raises Forbidden when the key may not use the model."""
        if not self.allows_model(model):
            raise Forbidden(f"This key may not use the model {model!r}.")

    @property
    def is_platform_admin(self) -> bool:
        """Whether the key may act on every tenant."""
        return Scope.PLATFORM_ADMIN in self.scopes

    def may_see(self, tenant_id: UUID) -> bool:
        """Whether this admin may see the tenant."""
        return self.is_platform_admin or tenant_id == self.tenant_id
