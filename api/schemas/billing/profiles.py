"""Shapes of the two parties of every bill: the operator and the tenant."""

from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas.fields import Body, Text, example
from api.schemas.rows import Row

State = Annotated[str, StringConstraints(pattern=r"^[0-9]{2}$")]
Gstin = Annotated[str, StringConstraints(min_length=15, max_length=15, pattern=r"^[0-9A-Za-z]+$")]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Lines = Annotated[list[Text], Field(min_length=1, max_length=4)]
Contact = Annotated[str, StringConstraints(pattern=r"^\+?[0-9]{8,15}$")]


class ProfileBody(Body):
    """A customer. `state`: its two-digit GST code, none outside India. Without `gstin` it is unregistered."""

    model_config = example(
        legal_name="Nimbus Tools Pvt Ltd",
        lines=["2 Marine Drive"],
        city="Mumbai",
        postal_code="400020",
        state="27",
        country="IN",
        email="billing@nimbus.example",
    )

    legal_name: Text
    lines: Lines
    city: Text
    postal_code: Text
    country: Country
    email: Text
    state: State | None = None
    gstin: Gstin | None = None
    contact: Contact | None = None


class ProfileItem(Row):
    """A customer, as on its next bill."""

    legal_name: str
    lines: list[str]
    city: str
    postal_code: str
    country: str
    email: str
    state: str | None
    gstin: str | None
    contact: str | None


class OperatorBody(Body):
    """The supplier on every bill. With `lut_number` it may serve customers outside India, zero-rated."""

    model_config = example(
        legal_name="Naka Cloud Pvt Ltd",
        lines=["1 Residency Road"],
        city="Bengaluru",
        postal_code="560025",
        state="29",
        gstin="29AAGCB7383J1Z4",
        email="accounts@naka.example",
        sac="998315",
    )

    legal_name: Text
    lines: Lines
    city: Text
    postal_code: Text
    state: State
    gstin: Gstin
    email: Text
    sac: Annotated[str, StringConstraints(pattern=r"^[0-9]{4,6}$")] = "998315"
    lut_number: Text | None = None


class OperatorItem(Row):
    """The supplier, as on the next bill."""

    legal_name: str
    lines: list[str]
    city: str
    postal_code: str
    state: str
    gstin: str
    email: str
    sac: str
    lut_number: str | None
