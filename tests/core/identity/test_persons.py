"""Who an ID token speaks of, and the roles that claims and scopes name."""

from typing import Any

import pytest

from core.identity.persons import ClaimRules, NotAdmitted, normal_email, read_person
from core.identity.roles import SCOPES, Role, highest
from core.tenancy.principal import Scope, includes

CLAIMS = {"iss": "https://login.example", "sub": "s1", "email": "Ada@Acme.Example", "email_verified": True}
BY_CLAIM = ClaimRules(role_claim="roles", tenant_claim="org")


def test_a_person() -> None:
    person = read_person(CLAIMS, ClaimRules())
    assert (person.issuer, person.subject, person.email) == ("https://login.example", "s1", "ada@acme.example")
    assert (person.role, person.tenant) == (None, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"sub": "a\nb"},
        {"iss": None},
        {"email": None},
        {"email": ["ada@acme.example"]},
        {"email": "ada"},
        {"email_verified": False},
        {"email_verified": "false"},
        {"email_verified": 1.5},
        {"email_verified": None},
    ],
)
def test_claims_that_name_nobody(changed: dict[str, Any]) -> None:
    with pytest.raises(NotAdmitted):
        read_person(CLAIMS | changed, ClaimRules())


@pytest.mark.parametrize("domain", ["acme.example.com", "notacme.example", "sub.acme.example"])
def test_another_domain(domain: str) -> None:
    rules = ClaimRules(allowed_domains=("acme.example",))
    assert read_person(CLAIMS, rules).email == "ada@acme.example"
    with pytest.raises(NotAdmitted):
        read_person(CLAIMS | {"email": f"ada@{domain}"}, rules)


@pytest.mark.parametrize(
    "text",
    ["", "@", "a@", "@b.example", "a@b", "a@b@c.example", "a b@c.example", "a,b@c.example", "a@c.example\n x", "a@."],
)
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="not an email address"):
        normal_email(text)


@pytest.mark.parametrize("text", ["\u212aate@example.com", "kate@\u212aing.example", "\u00fc@example.com"])
def test_an_address_that_looks_like_another_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="ASCII"):
        normal_email(text)
    with pytest.raises(NotAdmitted):
        read_person(CLAIMS | {"email": text}, ClaimRules())


@pytest.mark.parametrize(
    ("claims", "role", "tenant"),
    [
        ({"roles": "admin", "org": "acme"}, Role.ADMIN, "acme"),
        ({"roles": ["viewer", "owner", "staff", 7], "org": "acme"}, Role.OWNER, "acme"),
        ({"roles": ["staff"], "org": "acme"}, None, None),
        ({"roles": "admin"}, None, None),
        ({"roles": "admin", "org": ["acme"]}, None, None),
        ({"roles": {"admin": True}, "org": "acme"}, None, None),
        ({"org": "acme"}, None, None),
    ],
)
def test_a_role_by_claim(claims: dict[str, Any], role: Role | None, tenant: str | None) -> None:
    person = read_person(CLAIMS | claims, BY_CLAIM)
    assert (person.role, person.tenant) == (role, tenant)
    assert read_person(CLAIMS | claims, ClaimRules()).role is None, "no claim counts that is not named"


def test_each_role_includes_those_before_it() -> None:
    assert SCOPES[Role.VIEWER] < SCOPES[Role.ADMIN] < SCOPES[Role.OWNER]
    assert all(includes(SCOPES[Role.OPERATOR], scope) for scope in SCOPES[Role.OWNER])
    assert not includes(SCOPES[Role.ADMIN], Scope.TENANT_MEMBERS)
    assert not includes(SCOPES[Role.OWNER], Scope.PLATFORM_ADMIN)
    assert highest([]) is None
