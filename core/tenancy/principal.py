"""The principal of a request and its scopes. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from core.errors import NakaError


class Scope(StrEnum):
    """The permissions of a key. `platform:admin` includes `tenant:admin`; no other scope includes another."""

    CHAT = "chat"
    USAGE_READ = "usage:read"
    TENANT_ADMIN = "tenant:admin"
    PLATFORM_ADMIN = "platform:admin"


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


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a valid key: tenant, user, scopes, and the models the key may use (None: any)."""

    tenant_id: UUID
    user_id: UUID
    key_id: UUID
    scopes: frozenset[str]
    models: frozenset[str] | None = None
    expires_at_ms: int | None = None
    key_prefix: str = field(default="", compare=False)
    """The part of the key shown in logs."""

    def require(self, scope: Scope) -> None:
        """Raises Forbidden when the key lacks `scope`."""
        if scope in self.scopes or (scope == Scope.TENANT_ADMIN and Scope.PLATFORM_ADMIN in self.scopes):
            return
        raise Forbidden(f"This key lacks the permission {scope.value}.")

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
