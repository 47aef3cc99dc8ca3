"""The person of a sign-in, read from the verified claims of an ID token. Pure.

A provider may let people choose an email address, so only one that it has verified names somebody.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import NakaError
from core.identity.roles import Role, highest

MAX_EMAIL = 200
_MAX_SUBJECT = 255
"""OpenID Connect Core 1.0, section 2: `sub`."""
_NOT_IN_EMAILS = frozenset(" ,;<>\"'\\")


class NotAdmitted(NakaError):
    """Whoever signed in at the provider may not sign in here. The message tells the person why."""


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Settings about claims. Empty: every domain; no claim."""

    allowed_domains: Collection[str] = ()
    role_claim: str = ""
    tenant_claim: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom an issuer knows by `subject`; with the role and the tenant's slug that claims name, if any."""

    issuer: str
    subject: str
    email: str
    role: Role | None = None
    tenant: str | None = None


def normal_email(text: str) -> str:
    """The address as it is stored and compared: in lower case.

    Raises ValueError for anything that is no address, and for characters beyond ASCII: `lower` makes two addresses one
    (the Kelvin sign becomes "k").
    """
    if not text.isascii():
        raise ValueError("not an email address of ASCII characters")
    email = text.strip().lower()
    name, at, domain = email.rpartition("@")
    is_one = bool(at and name) and "." in domain.strip(".") and email.isprintable() and not _NOT_IN_EMAILS & set(email)
    if not is_one or "@" in name or len(email) > MAX_EMAIL:
        raise ValueError("not an email address")
    return email


def read_person(claims: Mapping[str, Any], rules: ClaimRules) -> Person:
    """The person of verified claims. Raises NotAdmitted."""
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
        raise NotAdmitted("The identity provider did not say who you are.")
    if not subject.isprintable():
        raise NotAdmitted("The identity provider did not say who you are.")
    given = claims.get("email")
    try:
        email = normal_email(given if isinstance(given, str) else "")
    except ValueError:
        raise NotAdmitted("The identity provider did not give an email address.") from None
    if claims.get("email_verified") not in (True, "true"):  # some providers send a text
        raise NotAdmitted(f"The identity provider has not verified your address {email}.")
    if rules.allowed_domains and email.rpartition("@")[2] not in rules.allowed_domains:
        raise NotAdmitted(f"Addresses like {email} may not sign in here.")
    role, tenant = _named(claims, rules)
    return Person(issuer, subject, email, role, tenant)


def _named(claims: Mapping[str, Any], rules: ClaimRules) -> tuple[Role | None, str | None]:
    """The role and the tenant of the claims; both or none."""
    if not rules.role_claim or not rules.tenant_claim:
        return None, None
    roles, tenant = claims.get(rules.role_claim), claims.get(rules.tenant_claim)
    role = highest(roles if isinstance(roles, list) else [roles])
    return (role, tenant) if role is not None and isinstance(tenant, str) and tenant else (None, None)
