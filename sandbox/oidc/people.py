"""The people that the simulator knows. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account at the provider. `claims`: more of an ID token, such as a role."""

    email: str
    name: str
    email_verified: bool = True
    claims: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """The `sub`: the same at each start."""
        return hashlib.sha256(self.email.encode()).hexdigest()[:24]


def read_people(texts: Iterable[str]) -> list[Person]:
    """People from texts like `ada@acme.example=Ada`."""
    pairs = (text.partition("=") for text in texts)
    return [Person(email, name or email.partition("@")[0].title()) for email, _, name in pairs]
