"""Who a request speaks for. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from core.errors import NakaError


class Scope(StrEnum):
    """What a key may do. None implies another, but for `platform:admin`, which may do what a tenant's admin may."""

    CHAT = "chat"
    USAGE_READ = "usage:read"
    TENANT_ADMIN = "tenant:admin"
    PLATFORM_ADMIN = "platform:admin"


class Unauthenticated(NakaError):
    """No key, or one that is malformed, unknown, expired or revoked. Which of them is not said."""

    def __init__(self, message: str = "a valid API key is needed") -> None:
        super().__init__(message)


class Forbidden(NakaError):
    """The key is good, but not for this."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A key that was found good: its tenant, user, scopes, and the models it may ask for (None: any)."""

    tenant_id: UUID
    user_id: UUID
    key_id: UUID
    scopes: frozenset[str]
    models: frozenset[str] | None = None
    expires_at_ms: int | None = None
    key_prefix: str = field(default="", compare=False)
    """The part of the key that logs may show."""

    def require(self, scope: Scope) -> None:
        """Raises Forbidden when the key lacks `scope`. A platform admin may do what a tenant's admin may."""
        if scope in self.scopes or (scope == Scope.TENANT_ADMIN and Scope.PLATFORM_ADMIN in self.scopes):
            return
        raise Forbidden(f"this key lacks the scope {scope.value}")

    @property
    def is_platform_admin(self) -> bool:
        """Whether every tenant is this key's business."""
        return Scope.PLATFORM_ADMIN in self.scopes

    def may_see(self, tenant_id: UUID) -> bool:
        """Whether `tenant_id` is this admin's business."""
        return self.is_platform_admin or tenant_id == self.tenant_id
