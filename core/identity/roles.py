"""The roles of members, and the scopes of their keys. Pure."""

from collections.abc import Iterable
from enum import StrEnum

from core.tenancy.principal import Scope, includes


class Role(StrEnum):
    """A member's role, the least first: each tenant role includes those before it.

    A viewer reads the tenant's usage, an admin administers the tenant, an owner also its members. An operator
    administers every tenant.
    """

    VIEWER = "viewer"
    ADMIN = "admin"
    OWNER = "owner"
    OPERATOR = "operator"


_VIEWER = frozenset({Scope.USAGE_READ, Scope.TENANT_READ})
_ADMIN = _VIEWER | {Scope.TENANT_ADMIN}
SCOPES = {
    Role.VIEWER: _VIEWER,
    Role.ADMIN: _ADMIN,
    Role.OWNER: _ADMIN | {Scope.TENANT_MEMBERS},
    Role.OPERATOR: frozenset({Scope.USAGE_READ, Scope.PLATFORM_ADMIN}),
}
"""No role chats: a person asks with a key of its own."""
_RANKS = list(Role)


_ADMINISTRATIVE = frozenset({Scope.TENANT_READ, Scope.TENANT_ADMIN, Scope.TENANT_MEMBERS, Scope.PLATFORM_ADMIN})


def lost_scopes(before: Role, after: Role) -> frozenset[Scope]:
    """The administrative permissions, reading a whole tenant's usage included, of `before` that `after` lacks."""
    return frozenset(
        scope for scope in _ADMINISTRATIVE if includes(SCOPES[before], scope) and not includes(SCOPES[after], scope)
    )


def highest(names: Iterable[object]) -> Role | None:
    """The highest role among the values of a claim; None without one. Other values are of no role."""
    found = [Role(name) for name in names if isinstance(name, str) and name in set(Role)]
    return max(found, key=_RANKS.index, default=None)
